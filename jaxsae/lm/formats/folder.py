"""Reads and writes Hugging Face directories: `config.json`, safetensors."""

import functools
import itertools
import json
from collections.abc import Callable, Iterable

import jax
import numpy as np
from etils import epath
from jax.sharding import Sharding
from jax.typing import DTypeLike

from jaxsae.errors import UserError
from jaxsae.files import whole_file
from jaxsae.lm.config import GemmaConfig
from jaxsae.lm.formats import config_json, huggingface, safetensors
from jaxsae.lm.formats.huggingface import Leaf
from jaxsae.lm.formats.json_file import read_json
from jaxsae.lm.formats.safetensors import FLOATS, Tensor
from jaxsae.lm.formats.tree import put
from jaxsae.lm.sharding import Path

INDEX = "model.safetensors.index.json"


def read_config(path: epath.Path) -> GemmaConfig:
  """Reads the sizes in `config.json` of a directory."""
  file = path / "config.json"
  return config_json.config_from_json(read_json(file), str(file))


def read_params(
  path: epath.Path,
  config: GemmaConfig,
  dtype: DTypeLike,
  place: Callable[[Path], Sharding],
) -> dict:
  """Reads the parameters, nested as in the official library.

  The host holds one parameter at a time: as it was read, and the parts on this
  process's devices once more, cast.

  Args:
    path: the directory.
    config: the sizes of the model.
    dtype: the dtype to cast to.
    place: maps a parameter's path to its sharding.

  Raises:
    UserError: names the tensor that is missing, surplus, of the wrong shape or
      type, or in two files; or the file that is damaged.
  """
  tensors = _index(path)
  _check(path, config, tensors)
  params = {}
  for leaf in huggingface.leaves(config):
    value = _load(leaf, tensors, dtype, place(leaf.path))
    put(params, leaf.path, value)
  return params


def _index(path) -> dict[str, Tensor]:
  """Returns the language model's tensors in all files, by plain name."""
  files = sorted(path.glob("*.safetensors"))
  _check_files(path, {file.name for file in files})
  found = {}
  for file in files:
    for name, tensor in safetensors.read_header(file).items():
      ours = huggingface.plain_name(name)
      if ours in found:
        raise UserError(_twice(tensor, found[ours]))
      if ours is not None:
        found[ours] = tensor
  return found


def _twice(one: Tensor, other: Tensor) -> str:
  belongs = "file" if one.file != other.file else "model"
  return (
    f"{other.name} in {other.file} and {one.name} in {one.file} are the same"
    f" weight; remove the {belongs} that does not belong there."
  )


def _check_files(path, found: set[str]) -> None:
  if not found:
    raise UserError(f"{path} holds no *.safetensors file.")
  if not (path / INDEX).exists():
    return
  index = read_json(path / INDEX)
  named = index.get("weight_map") if isinstance(index, dict) else None
  if not isinstance(named, dict):
    raise UserError(f"{path / INDEX} has no weight_map.")
  missing = {str(file) for file in named.values()} - found
  if missing:
    raise UserError(
      f"{path} lacks {_some(sorted(missing))}, which {INDEX} names; download it"
      " again."
    )


def _check(path, config: GemmaConfig, tensors: dict[str, Tensor]) -> None:
  """Raises UserError unless the tensors are exactly the model's."""
  names = (n for leaf in huggingface.leaves(config) for n in leaf.names)
  # Not all are listed: a wrong config.json may ask for any number of layers.
  missing = list(itertools.islice((n for n in names if n not in tensors), 4))
  prefix = huggingface.unknown_prefix(tensors)
  if missing and prefix:
    raise UserError(
      f"The names of the weights in {path} begin with {prefix!r}, of a model"
      " around the language model; save them without it."
    )
  if missing:
    raise UserError(_mismatch(path, f"lacks {_some(missing)}"))
  wanted = {}
  for leaf in huggingface.leaves(config):
    wanted |= leaf.names
  surplus = sorted(tensors[name].name for name in tensors.keys() - wanted)
  if surplus:
    raise UserError(_mismatch(path, f"has the unexpected {_some(surplus)}"))
  for name, shape in wanted.items():
    _check_tensor(tensors[name], shape)


def _mismatch(path, problem: str) -> str:
  return f"{path} does not match its config.json: it {problem}."


def _some(names: Iterable[str]) -> str:
  first = list(itertools.islice(names, 4))
  return ", ".join(first[:3]) + (" …" if len(first) > 3 else "")


def _check_tensor(tensor: Tensor, shape: tuple[int, ...]) -> None:
  if tensor.shape != shape:
    raise UserError(
      f"{tensor.name} in {tensor.file} has shape {tensor.shape}; config.json"
      f" implies {shape}."
    )
  if tensor.dtype not in FLOATS:
    raise UserError(
      f"{tensor.name} in {tensor.file} is of type {tensor.dtype}; only"
      f" {', '.join(FLOATS)} are supported."
    )


def _load(leaf: Leaf, tensors: dict[str, Tensor], dtype, where: Sharding):
  """Reads one parameter onto the devices."""
  value = leaf.join(*(tensors[name].read() for name in leaf.names))

  @functools.cache  # several devices may have the same part
  def cast(*bounds):
    return value[tuple(slice(*b) for b in bounds)].astype(dtype, order="C")

  array = jax.make_array_from_callback(
    value.shape,
    where,
    lambda index: cast(*((s.start, s.stop) for s in index or ())),
    dtype=dtype,
  )
  return (
    array.block_until_ready()
  )  # or the next would be read while this is in memory


def write(
  path: epath.Path,
  config: GemmaConfig,
  params: dict,
  special_ids: tuple[int, int | None, int],
  dtype: DTypeLike,
) -> None:
  """Writes a language model's sizes and weights into an empty directory.

  Args:
    path: the directory.
    config: the sizes of the model.
    params: the parameters, nested as in the official library.
    special_ids: ids of BOS, EOS and PAD.
    dtype: the dtype to cast to.
  """
  from safetensors.numpy import save_file

  sizes = config_json.config_to_json(config, *special_ids)
  with whole_file(path / "config.json") as partial:
    partial.write_text(json.dumps(sizes, indent=2) + "\n")
  tensors = dict(_tensors(config, params, np.dtype(dtype)))
  # Hugging Face's loaders ask for the format.
  with whole_file(path / "model.safetensors") as partial:
    save_file(tensors, partial, metadata={"format": "pt"})


def _tensors(config: GemmaConfig, params: dict, dtype: np.dtype):
  for leaf in huggingface.leaves(config):
    value = params
    for key in leaf.path:
      value = value[key]
    parts = leaf.split(np.asarray(value))
    for name, part in zip(leaf.names, parts, strict=True):
      # The library writes raw memory, even of a transposed array.
      yield name, part.astype(dtype, order="C")
