"""The files of formats that are a configuration in JSON and safetensors."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from etils import epath

from jaxsae.errors import UserError
from jaxsae.files import given_path, is_file, refusals_told, whole_file
from jaxsae.formats.format import Path
from jaxsae.lm.formats import safetensors

_LARGEST = 10_000_000  # bytes of a configuration; published have some 2,000


def folder_at(path: Path, *files: str) -> epath.Path:
  """Returns the folder at a path that is the folder or one of these files."""
  path = given_path(path)
  return path.parent if path.name in files else path


def read_config(file: epath.Path) -> dict[str, Any]:
  """Reads a configuration that is not trusted.

  Raises:
    UserError: the file is missing or too large, or no JSON object.
  """
  if not is_file(file):
    raise UserError(f"{file} is missing; put it beside the weights.")
  try:
    if file.stat().length > _LARGEST:
      raise ValueError(f"it has more than {_LARGEST:,} bytes")
    content = json.loads(file.read_bytes())
    if not isinstance(content, dict):
      raise ValueError("it is not a JSON object")
  except (ValueError, RecursionError) as error:
    raise UserError(f"{file} is damaged ({error}); get it again.") from error
  return content


def read_arrays(file: epath.Path) -> dict[str, np.ndarray]:
  """Reads all tensors of a file as float32.

  Raises:
    UserError: it is missing or damaged, or a tensor is not of floats.
  """
  if not is_file(file):
    raise UserError(f"{file} is missing; get the weights again.")
  tensors = safetensors.read_header(file)
  for name, tensor in tensors.items():
    if tensor.dtype not in safetensors.FLOATS:
      raise UserError(
        f"{name} in {file} is of type {tensor.dtype}; convert it to float32."
      )
  as_float = lambda x: np.asarray(x.read(), np.float32)
  return {name: as_float(tensor) for name, tensor in tensors.items()}


def check_names(
  found: Mapping[str, Any], wanted: set[str], file: epath.Path
) -> None:
  """Raises UserError unless a file has the wanted tensors and no others."""
  missing, extra = wanted - found.keys(), found.keys() - wanted
  if missing or extra:
    raise UserError(
      f"{file} has the tensors {' '.join(sorted(found)) or '(none)'}; this"
      f" architecture has {' '.join(sorted(wanted))}."
    )


def checked_k(k: Any, width: int, file: epath.Path) -> int:
  """Returns the k of TopK, or raises UserError unless it can be that."""
  if type(k) is not int or not 1 <= k <= width:
    raise UserError(f"{file} has k={k!r}; it must be from 1 to {width:,}.")
  return k


def write(
  arrays: Mapping[str, np.ndarray],
  weights: epath.Path,
  config: Mapping[str, Any],
  config_file: epath.Path,
) -> None:
  """Writes the two files, or none of them.

  Raises:
    UserError: one exists or cannot be written.
  """
  from safetensors.numpy import save_file

  for file in (weights, config_file):
    if file.exists():
      raise UserError(f"{file} exists; remove it or choose another folder.")
  text = json.dumps(config, indent=2) + "\n"
  whole = {name: np.ascontiguousarray(x) for name, x in arrays.items()}
  with refusals_told(weights.parent):
    with whole_file(weights) as partial:
      save_file(whole, partial)
    try:
      with whole_file(config_file) as partial:
        partial.write_text(text)
    except BaseException:
      weights.unlink(missing_ok=True)
      raise
