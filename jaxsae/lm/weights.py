"""Loads language models from disk or a bucket onto the mesh, and saves them."""

import contextlib
import functools
import os
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath  # paths that may begin with gs://
from jax.sharding import Mesh
from jax.typing import DTypeLike

from jaxsae.brief import brief
from jaxsae.errors import RunError, UserError
from jaxsae.files import given_path, is_finished, whole_file, whole_folder
from jaxsae.lm import sharding
from jaxsae.lm.config import GemmaConfig
from jaxsae.lm.formats import folder, official, special_ids
from jaxsae.lm.formats.safetensors import FLOATS
from jaxsae.lm.gemma import init_params
from jaxsae.lm.lm import Lm
from jaxsae.lm.tokenizer import find_tokenizer

SHIPPED = {"gemma2-tiny": pathlib.Path(__file__).parent / "tiny"}


def load_lm(
  name_or_path: str | os.PathLike[str],
  *,
  dtype: DTypeLike | None = None,
  mesh: Mesh | None = None,
  fsdp: bool = False,
  config: GemmaConfig | None = None,
  tokenizer: str | os.PathLike[str] | None = None,
) -> Lm:
  """Loads a Gemma 2 or 3, one parameter at a time, onto the mesh.

  Args:
    name_or_path: a Hugging Face directory (`config.json`, `*.safetensors`) or
      an official Orbax checkpoint, here or under `gs://`; `"gemma2-tiny"`,
      which ships with jaxsae; or, where the package `gemma` is installed, one
      of its checkpoints by name, such as `"gemma2-2b-pt"`.
    dtype: of the weights and the arithmetic; by default float32 on CPU and
      bfloat16 elsewhere.
    mesh: the mesh to load onto; by default the first device.
    fsdp: shard the weights over the mesh's `data` axis too.
    config: the sizes of an Orbax checkpoint that is not a published model;
      the sizes of all others are read.
    tokenizer: path of a `tokenizer.model` or `tokenizer.json`; by default the
      one beside the weights, if any.

  Raises:
    UserError: names the array that is missing, surplus, or of the wrong shape
      or type, or the axis of the mesh that does not divide the model; or the
      dtype is none of weights.
  """
  name = str(name_or_path)
  dtype = default_dtype() if dtype is None else _of_weights(dtype)
  path, tokenizer = _locate(name, tokenizer)
  source = _source(path, name)
  config = config or source.read_config(path)
  place = sharding.placement(config, mesh, fsdp)
  params = source.read_params(path, config, dtype, place)
  found = find_tokenizer(tokenizer or path, config, path)
  id_of = found.id_of if found else lambda _: None
  ends = special_ids.turn_ends(path, config.vocab_size, id_of)
  return Lm(params, config, found, name, mesh, ends=ends)


def read_sizes(name_or_path: str | os.PathLike[str]) -> GemmaConfig:
  """Reads the sizes of the model that `load_lm` would load, not its weights.

  For an official name no file is read and no package is needed.

  Raises:
    UserError: the path is not a language model.
  """
  name = str(name_or_path)
  if official.is_name(name):
    return official.sizes(name)
  path, _ = _locate(name, None)
  return _source(path, name).read_config(path)


def default_dtype() -> DTypeLike:
  """Returns bfloat16, but float32 on CPU, where bfloat16 is slow."""
  return jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16


def _of_weights(dtype: DTypeLike) -> np.dtype:
  """Returns a type that weights may have; raises UserError for others."""
  with contextlib.suppress(TypeError):
    if (found := jnp.dtype(dtype)) in map(jnp.dtype, FLOATS.values()):
      return found
  raise UserError(
    f"dtype={brief(dtype)} is not a type of weights; give jax.numpy.bfloat16 or"
    " jax.numpy.float32."
  )


def save_lm(
  lm: Lm, path: str | os.PathLike[str], dtype: DTypeLike = jnp.bfloat16
) -> None:
  """Writes a new Hugging Face directory that `load_lm` reads back.

  Args:
    lm: the language model.
    path: the directory, local or remote; it must not exist.
    dtype: the dtype to write.
  """
  path, dtype = given_path(path), _of_weights(dtype)
  if is_finished(path):
    raise UserError(f"{path} exists; remove it or choose another path.")
  with whole_folder(path) as partial:
    t = lm.tokenizer
    special = (t.bos, t.eos, t.pad) if t else (2, 1, 0)
    folder.write(partial, lm.config, lm.params, special, dtype)
    special_ids.write_ends(partial, lm.ends)
    if t:
      with whole_file(partial / t.file_name) as file:
        file.write_bytes(t.model)


def _locate(name: str, tokenizer):
  """Returns the paths of the weights and the tokenizer (None: beside them)."""
  if name in SHIPPED:
    return epath.Path(SHIPPED[name]), tokenizer
  if official.is_name(name):
    path, its_own = official.locate(name)
    return path, tokenizer or its_own
  return given_path(name), tokenizer


def _source(path, name: str):
  """Returns the module that reads the format at the path."""
  if _exists(path / "config.json"):
    return folder
  if official.is_checkpoint(path):
    return official
  raise UserError(
    f"{name} is not a language model; give a Hugging Face directory (no"
    f" {path / 'config.json'}), an official Orbax checkpoint, or one of"
    f" {', '.join(SHIPPED)}."
  )


def _exists(file) -> bool:
  """Returns whether a file exists; the first access to a remote path."""
  try:
    return file.exists()
  except ImportError as error:
    raise UserError(
      f"Reading {file} needs a package; run `pip install gcsfs`."
    ) from error
  except (RunError, UserError):
    raise
  except Exception as error:  # each backend of epath raises its own kinds
    reason = str(error).strip().partition("\n")[0]
    raise UserError(
      f"{file} cannot be reached ({reason or type(error).__name__}); check the"
      " path, the network and your credentials."
    ) from error


def abstract_lm(
  config: GemmaConfig,
  mesh: Mesh,
  fsdp: bool = False,
  dtype: DTypeLike = jnp.bfloat16,
) -> Lm:
  """Makes a language model of shapes and shardings, without arrays.

  Args:
    config: the sizes of the model.
    mesh: a mesh of devices that need not exist here.
    fsdp: whether weights are sharded over `data` too.
    dtype: the dtype of the weights.
  """
  place = sharding.placement(config, mesh, fsdp)

  def abstract(path, x):
    layout = place(tuple(key.key for key in path))
    return jax.ShapeDtypeStruct(x.shape, dtype, sharding=layout)

  return Lm(
    jax.tree.map_with_path(abstract, _shapes(config)), config, mesh=mesh
  )


@functools.cache  # it takes a second, and plans ask for it often
def _shapes(config: GemmaConfig):
  return jax.eval_shape(lambda: init_params(config, jax.random.key(0)))
