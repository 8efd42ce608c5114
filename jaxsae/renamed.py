"""Old names of things that moved; they work for one more release."""

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any

_told: set[str] = set()


def forward(module: str, moved: Mapping[str, str]) -> Callable[[str], Any]:
  """Makes the `__getattr__` of a module whose names have moved.

  The first use of an old name prints one line on stderr with the new name.

  Args:
    module: the module's own name.
    moved: old name in the module → full new name, like `jaxsae.runs.main`.
  """

  def find(name: str) -> Any:
    if name not in moved:
      raise AttributeError(f"module {module!r} has no attribute {name!r}")
    old, new = f"{module}.{name}", moved[name]
    if old not in _told:
      _told.add(old)
      print(
        f"note: {old} is now {new}; the old name works in this release only",
        file=sys.stderr,
      )
    home, _, leaf = new.rpartition(".")
    return getattr(importlib.import_module(home), leaf)

  return find
