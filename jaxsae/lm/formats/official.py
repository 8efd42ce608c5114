"""Official Gemma checkpoints, which Orbax wrote, and their names.

`layouts` knows which array holds which parameter, and `orbax_tree` reads them;
this file checks them against the model and loads them onto the devices.
"""

import os
import re
from collections.abc import Callable

import jax
import jax.numpy as jnp
from etils import epath
from jax.sharding import NamedSharding, PartitionSpec, Sharding
from jax.typing import DTypeLike

from jaxsae.errors import UserError, first_few
from jaxsae.lm.config import PUBLISHED, GemmaConfig
from jaxsae.lm.formats import orbax_tree
from jaxsae.lm.formats.layouts import Stored, of_text_model
from jaxsae.lm.formats.orbax_tree import names_of
from jaxsae.lm.formats.tree import put
from jaxsae.lm.gemma import init_params
from jaxsae.lm.sharding import Path


def is_name(name: str) -> bool:
  """Returns whether a name is official, such as `gemma2-2b-pt`."""
  size, _, kind = _plain(name).rpartition("-")
  return size in PUBLISHED and kind in ("pt", "it")


def sizes(name: str) -> GemmaConfig:
  """Returns the sizes of the model with an official name."""
  return PUBLISHED[_plain(name).rpartition("-")[0]]()


def _plain(name: str) -> str:
  return name.lower().replace("_", "-")


def locate(name: str) -> tuple[epath.Path, str | os.PathLike[str]]:
  """Asks the package `gemma` where the weights and the tokenizer are.

  Returns:
    The path of the checkpoint, and the path of the tokenizer's file.

  Raises:
    UserError: the package is not installed, or older than the model.
  """
  try:
    # Absent where the lock has no gemma, above Python 3.11.
    from gemma import gm  # pyright: ignore[reportAttributeAccessIssue, reportMissingImports]
  except ImportError as error:
    raise UserError(
      f"{name} is known to the package gemma only, which is not installed;"
      ' run `pip install "jaxsae[gemma]"`, or give the path of the weights.'
    ) from error
  key = _plain(name).replace("-", "_").upper()
  if key not in gm.ckpts.CheckpointPath.__members__:
    raise UserError(f"The installed package gemma is older than {name}.")
  second = key.startswith("GEMMA2")
  tokenizer = gm.text.Gemma2Tokenizer if second else gm.text.Gemma3Tokenizer
  return epath.Path(gm.ckpts.CheckpointPath[key].value), tokenizer().path


def is_checkpoint(path: epath.Path) -> bool:
  """Returns whether a path is an Orbax checkpoint."""
  return bool(orbax_tree.names(path))


def read_config(path: epath.Path) -> GemmaConfig:
  """Returns the sizes of the published model that a checkpoint holds.

  Only the metadata is read.

  Raises:
    UserError: the checkpoint is damaged, is not a Gemma, or has no published
      size.
  """
  sizes = _sizes({p: x for x in _arrays(path) for p in x.paths}, path)
  for published in PUBLISHED.values():
    config = published()
    if all(getattr(config, name) == size for name, size in sizes.items()):
      return config
  found = ", ".join(f"{name}={size}" for name, size in sizes.items())
  raise UserError(
    f"{path} is not one of the published models ({', '.join(PUBLISHED)}): it"
    f" has {found}; pass its `config=`."
  )


def _sizes(arrays: dict[Path, Stored], where) -> dict[str, int]:
  """Returns the fields of GemmaConfig that follow from shapes alone."""
  layer = lambda *leaf: _shape(arrays, ("layer_0", *leaf), where)
  vocab_size, embed_dim = _shape(arrays, ("embedder", "input_embedding"), where)
  if ("layer_0", "attn", "qkv_einsum", "w") in arrays:
    _, heads, _, head_dim = layer("attn", "qkv_einsum", "w")
    kv_heads = heads
  else:
    heads, _, head_dim = layer("attn", "q_einsum", "w")
    _, kv_heads, _, _ = layer("attn", "kv_einsum", "w")
  hidden_dim, _ = layer("mlp", "linear")
  layers = [re.fullmatch(r"layer_(\d{1,4})", path[0]) for path in arrays]
  return {
    "vocab_size": vocab_size,
    "num_layers": 1 + max(int(match[1]) for match in layers if match),
    "embed_dim": embed_dim,
    "hidden_dim": hidden_dim,
    "num_heads": heads,
    "num_kv_heads": kv_heads,
    "head_dim": head_dim,
    "transpose_gating": layer("mlp", "gating_einsum")[1] == hidden_dim,
    "qk_norm": ("layer_0", "attn", "_query_norm", "scale") in arrays,
  }


_RANKS = {
  "input_embedding": 2,
  "qkv_einsum": 4,
  "q_einsum": 3,
  "kv_einsum": 4,
  "linear": 2,
  "gating_einsum": 3,
}


def _shape(arrays, path: Path, where) -> tuple[int, ...]:
  if path not in arrays:
    raise UserError(f"{where} is not a Gemma: it lacks {'/'.join(path)}.")
  shape = arrays[path].part_shape
  rank = next(rank for name, rank in _RANKS.items() if name in path)
  if len(shape) != rank:
    raise UserError(
      f"{where} is not a Gemma: its {'/'.join(path)} has the shape"
      f" {list(shape)}, not {rank} axes."
    )
  return shape


def read_params(
  path: epath.Path,
  config: GemmaConfig,
  dtype: DTypeLike,
  place: Callable[[Path], Sharding],
) -> dict:
  """Reads the parameters, nested and named as in the official library.

  Each process keeps only the parts on its devices. Its memory holds at most the
  larger of 64 MB and the largest array's chunks at a time, once as read and
  once cast. A stack of layers is on the devices twice while it is unstacked.

  Args:
    path: the checkpoint.
    config: the sizes; every array is checked against them before any is read.
    dtype: the dtype to cast to.
    place: maps a parameter's path to its sharding.

  Raises:
    UserError: names arrays that are missing, surplus or of another shape or
      type; or the checkpoint is damaged.
  """
  arrays = _arrays(path)
  _check(arrays, config, path)
  wanted = {}
  for x in arrays:
    where = _stack_sharding(x, place)
    put(wanted, x.keys, jax.ShapeDtypeStruct(x.shape, dtype, sharding=where))
  restored = orbax_tree.restore(path, wanted, max(x.read_bytes for x in arrays))
  params = {}
  for x in arrays:
    for part, value in _parts(x, restored.pop(x.keys), place):
      put(params, part, value)
  return params


def _arrays(path) -> list[Stored]:
  """Lists the text model's arrays from the checkpoint's metadata."""
  return of_text_model(orbax_tree.arrays(path), str(path))


def _check(arrays: list[Stored], config: GemmaConfig, where) -> None:
  """Raises UserError unless the arrays are the model's."""
  expected = _expected(config)
  found = {path: x for x in arrays for path in x.paths}
  _refuse("lacks", [p for p in expected if p not in found], where)
  _refuse("has, and the model has not,", found.keys() - expected.keys(), where)
  for path, shape in expected.items():
    if found[path].part_shape != shape:
      _refuse_shape(path, found[path].part_shape, shape, where)
    if not jnp.issubdtype(found[path].dtype, jnp.floating):
      raise UserError(
        f"{'/'.join(path)} in {where} is {found[path].dtype}; only"
        " floating-point weights are supported."
      )


def _expected(config: GemmaConfig) -> dict[Path, tuple[int, ...]]:
  """Returns every parameter's path and shape."""
  shapes = jax.eval_shape(
    lambda key: init_params(config, key), jax.random.key(0)
  )
  leaves = jax.tree_util.tree_leaves_with_path(shapes)
  return {names_of(keys): leaf.shape for keys, leaf in leaves}


def _refuse(what: str, paths, where) -> None:
  names = sorted("/".join(path) for path in paths)
  if names:
    raise UserError(f"{where} {what} {first_few(names)}.")


def _refuse_shape(path: Path, found, expected, where):
  hint = ""
  if "gating_einsum" in path and sorted(found) == sorted(expected):
    hint = "; the configuration's transpose_gating is the wrong way round"
  raise UserError(
    f"{'/'.join(path)} in {where} has the shape {list(found)}, not"
    f" {list(expected)}{hint}."
  )


def _stack_sharding(x: Stored, place) -> Sharding:
  """Returns the sharding of an array: its parameters', not split by layer."""
  where = place(x.paths[0])
  if x.stacked and isinstance(where, NamedSharding):
    return NamedSharding(where.mesh, PartitionSpec(None, *where.spec))
  return where


def _parts(x: Stored, array: jax.Array, place):
  """Returns (path, parameter) for each in the array; frees a stack."""
  if not x.stacked:
    return [(x.paths[0], array)]
  where = tuple(place(path) for path in x.paths)
  parts = jax.jit(jnp.unstack, out_shardings=where)(array)
  array.delete()
  return list(zip(x.paths, parts, strict=True))
