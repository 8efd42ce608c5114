"""Reads an experiment file for its runs' configs, and trains nothing."""

import pathlib
import runpy
import sys
from collections.abc import Mapping
from typing import NamedTuple

from jaxsae.train.config.run import TrainConfig


class Contents(NamedTuple):
  """The contents of an experiment file.

  Attributes:
    configs: name → config of each run; empty for a file of another form.
    doc: the file's docstring.
    is_single: whether it has one `config` for `main`, and not a function
      `configs` for `main_each`.
  """

  configs: Mapping[str, TrainConfig]
  doc: str | None
  is_single: bool


def read(file: pathlib.Path) -> Contents:
  """Reads a file that has `config`, a TrainConfig, or `configs()`.

  The file's code runs as on import, without what is under `if __name__ ==
  "__main__":`.
  """
  sys.path.insert(0, str(file.parent))  # as `python FILE` has it
  found = runpy.run_path(str(file), run_name="read")
  doc = found["__doc__"]
  if isinstance(found.get("config"), TrainConfig):
    return Contents({file.stem: found["config"]}, doc, is_single=True)
  configs = found["configs"]() if callable(found.get("configs")) else {}
  return Contents(dict(configs or {}), doc, is_single=False)
