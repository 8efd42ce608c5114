"""Old names of things that moved; they work for one more release."""

import functools
import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

Class = TypeVar("Class", bound=type)

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
    tell_once(old, new)
    home, _, leaf = new.rpartition(".")
    return getattr(importlib.import_module(home), leaf)

  return find


def accept_argument(old: str, new: str) -> Callable[[Class], Class]:
  """Decorates a class so that its argument `new` may still be called `old`.

  The first use of the old name prints one line on stderr with the new name.
  """

  def decorate(cls: Class) -> Class:
    init = cls.__init__

    @functools.wraps(init)
    def renaming_init(self, *args, **named):
      if old in named:
        tell_once(f"{cls.__name__}({old}=…)", f"{cls.__name__}({new}=…)")
        named[new] = named.pop(old)
      init(self, *args, **named)

    cls.__init__ = renaming_init
    return cls

  return decorate


def tell_once(old: str, new: str) -> None:
  """Prints one line with the new name, at the first use of the old one."""
  if old not in _told:
    _told.add(old)
    print(
      f"note: {old} is now {new}; the old name works in this release only",
      file=sys.stderr,
    )
