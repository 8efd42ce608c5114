"""Reads and writes Hugging Face directories: `config.json`, safetensors."""

import functools
import itertools
import json
import pathlib
from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np
from jax.sharding import Sharding

from jaxsae.errors import UserError
from jaxsae.lm.config import GemmaConfig
from jaxsae.lm.formats import config_json, huggingface, safetensors
from jaxsae.lm.formats.huggingface import Leaf
from jaxsae.lm.formats.safetensors import FLOATS, Tensor
from jaxsae.lm.formats.tree import put
from jaxsae.lm.sharding import Path

INDEX = "model.safetensors.index.json"


def read_config(path) -> GemmaConfig:
  """Reads the sizes in `config.json` of a directory, an `epath.Path`."""
  file = path / "config.json"
  return config_json.config_from_json(read_json(file), str(file))


def read_json(file) -> Any:
  """Reads a JSON file, an `epath.Path`."""
  try:
    return json.loads(file.read_bytes().decode())
  except (ValueError, RecursionError) as error:
    raise UserError(f"{file} is not JSON: {error}.") from error


def read_params(
  path, config: GemmaConfig, dtype, place: Callable[[Path], Sharding]
) -> dict:
  """Reads the parameters, nested as in the official library.

  The host holds one parameter at a time: as it was read, and the parts on this
  process's devices once more, cast.

  Args:
    path: `epath.Path` of the directory.
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
  return (
    f"{other.name} in {other.file} and {one.name} in {one.file} are the same"
    " weight; remove the file that does not belong there."
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
    lambda index: cast(*((s.start, s.stop) for s in index)),
    dtype=dtype,
  )
  return (
    array.block_until_ready()
  )  # or the next would be read while this is in memory


def write(lm, path: pathlib.Path, dtype) -> None:
  """Writes a language model, and its tokenizer, into an empty directory."""
  from safetensors.numpy import save_file

  t = lm.tokenizer
  special = (t.bos, t.eos, t.pad) if t else (2, 1, 0)
  config = config_json.config_to_json(lm.config, *special)
  (path / "config.json").write_text(json.dumps(config, indent=2) + "\n")
  if t:
    (path / t.file_name).write_bytes(t.model)
  tensors = dict(_tensors(lm, np.dtype(dtype)))
  # Hugging Face's loaders ask for the format.
  save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})


def _tensors(lm, dtype):
  for leaf in huggingface.leaves(lm.config):
    value = lm.params
    for key in leaf.path:
      value = value[key]
    parts = leaf.split(np.asarray(value))
    for name, part in zip(leaf.names, parts, strict=True):
      # The library writes raw memory, even of a transposed array.
      yield name, part.astype(dtype, order="C")
