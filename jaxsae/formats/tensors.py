"""The files of formats that are a configuration in JSON and safetensors."""

import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import yaml
from etils import epath

from jaxsae.errors import UserError
from jaxsae.files import given_path, is_file, refusals_told, whole_file
from jaxsae.formats.arrays import check_memory, reason
from jaxsae.formats.format import Path
from jaxsae.lm.formats import safetensors

_LARGEST = 10_000_000  # bytes of a configuration; published have some 2,000
_LARGEST_YAML = 100_000  # which takes a thousand times as long to read


def folder_at(path: Path, *files: str) -> epath.Path:
  """Returns the folder at a path that is the folder or one of these files."""
  path = given_path(path)
  return path.parent if path.name in files else path


def read_config(file: epath.Path) -> dict[str, Any]:
  """Reads a configuration that is not trusted.

  Raises:
    UserError: the file is missing or too large, or no JSON object.
  """
  return _read_mapping(file, json.loads, _LARGEST)


def read_yaml(file: epath.Path) -> dict[str, Any]:
  """Reads a configuration in YAML that is not trusted.

  Raises:
    UserError: the file is missing or too large, or no mapping.
  """
  return _read_mapping(file, _from_yaml, _LARGEST_YAML)


def _read_mapping(
  file: epath.Path, parse: Callable[[bytes], Any], largest: int
) -> dict[str, Any]:
  if not is_file(file):
    raise UserError(f"{file} is missing; put it beside the weights.")
  try:
    if file.stat().length > largest:
      raise ValueError(f"it has more than {largest:,} bytes")
    content = parse(file.read_bytes())
    if not isinstance(content, dict) or not all(
      isinstance(name, str) for name in content
    ):
      raise ValueError("it does not hold values by name")
  except (ValueError, RecursionError, yaml.YAMLError) as error:
    raise UserError(
      f"{file} is damaged ({reason(error)}); get it again."
    ) from error
  return content


class _Loader(yaml.SafeLoader):
  """Reads YAML without aliases, which few bytes can multiply endlessly."""

  def compose_node(self, parent: Any, index: Any) -> Any:
    """Composes what comes next."""
    if self.check_event(yaml.AliasEvent):
      raise yaml.YAMLError("it has aliases")
    return super().compose_node(parent, index)


def _from_yaml(content: bytes) -> Any:
  return yaml.load(content, _Loader)  # which makes plain values only


def yaml_text(config: Mapping[str, Any]) -> str:
  """Returns a configuration as YAML."""
  return yaml.safe_dump(dict(config), sort_keys=False)


def json_text(config: Mapping[str, Any]) -> str:
  """Returns a configuration as JSON."""
  return json.dumps(config, indent=2) + "\n"


def read_arrays(file: epath.Path) -> dict[str, np.ndarray]:
  """Reads all tensors of a file as float32.

  Raises:
    UserError: it is missing or damaged, or a tensor is not of floats.
  """
  if not is_file(file):
    raise UserError(f"{file} is missing; get the weights again.")
  tensors = safetensors.read_header(file)
  check_memory((tensor.shape for tensor in tensors.values()), file)
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


def write_arrays(arrays: Mapping[str, np.ndarray], weights: epath.Path) -> None:
  """Writes a new file of weights.

  Raises:
    UserError: it exists or cannot be written.
  """
  from safetensors.numpy import save_file

  _check_new(weights)
  whole = {name: np.ascontiguousarray(x) for name, x in arrays.items()}
  with refusals_told(weights.parent), whole_file(weights) as partial:
    save_file(whole, partial)


def write(
  arrays: Mapping[str, np.ndarray],
  weights: epath.Path,
  config: str,
  config_file: epath.Path,
) -> None:
  """Writes two new files, the weights and their configuration, or neither.

  Raises:
    UserError: one exists or cannot be written.
  """
  _check_new(config_file)
  write_arrays(arrays, weights)
  try:
    with refusals_told(weights.parent), whole_file(config_file) as partial:
      partial.write_text(config)
  except BaseException:
    weights.unlink(missing_ok=True)
    raise


def _check_new(file: epath.Path) -> None:
  if file.exists():
    raise UserError(f"{file} exists; remove it or choose another folder.")
