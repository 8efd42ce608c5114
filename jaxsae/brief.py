"""Values in a few words: what `repr` and messages say instead of numbers."""

import dataclasses
from typing import Any

import jax
import numpy as np
from jax.core import Tracer

_LONGEST = 60  # characters of a value that is none of ours


def brief(value: Any) -> str:
  """Describes a value in one short line, arrays by type and shape.

  An array of one number is shown as that number.
  """
  if isinstance(value, jax.Array | np.ndarray | np.generic):
    return _array(value)
  if isinstance(value, jax.ShapeDtypeStruct):
    return _shape(value)
  if type(value).__repr__ is fields:
    return repr(value)
  arrays = [x for x in _leaves(value) if hasattr(x, "dtype")]
  if arrays:
    return f"{type(value).__name__} of {len(arrays)} arrays"
  return _cut(repr(value))


def fields(self) -> str:
  """Describes a dataclass in one line; to be its `__repr__`.

  Fields that have their default value are left out.
  """
  shown = [
    f"{field.name}={brief(value)}"
    for field in dataclasses.fields(self)
    if (value := getattr(self, field.name)) is not field.default
  ]
  return f"{type(self).__name__}({', '.join(shown)})"


def _array(x: Any) -> str:
  one = x.size == 1 and not isinstance(x, Tracer) and _is_number(x.dtype)
  if one and getattr(x, "is_fully_addressable", True):
    return _cut(str(x.item() if isinstance(x, np.generic) else np.ravel(x)[0]))
  return _shape(x)


def _is_number(dtype: Any) -> bool:
  return isinstance(dtype, np.dtype)  # those of random keys are not


def _shape(x: Any) -> str:
  return f"{x.dtype}{list(x.shape)}"


def _leaves(value: Any) -> list[Any]:
  # A mapping whose keys have no order is no pytree.
  try:
    return jax.tree.leaves(value)
  except (TypeError, ValueError):
    return []


def _cut(text: str) -> str:
  line = " ".join(text.split())
  return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 1]}…"
