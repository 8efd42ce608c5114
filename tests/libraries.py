"""Other libraries that tests compare with, which the lock may leave out."""

import importlib
import sys
import types
import warnings

import pytest


def need(module: str) -> types.ModuleType:
  """Returns the module, or skips from Python 3.12 on where it is missing.

  The lock has torch, SAELens and gemma for Python below 3.12. There a missing
  one is a broken installation, which a skip would hide.

  Raises:
    ModuleNotFoundError: it is missing below Python 3.12.
  """
  if sys.version_info >= (3, 12):
    reason = f"{module} is in the lock for Python below 3.12 only"
    return pytest.importorskip(module, reason=reason)
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # as importorskip does
    return importlib.import_module(module)
