"""Language models from disk or a bucket, straight onto the mesh, and back."""

import functools
import pathlib

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jaxsae.errors import UserError
from jaxsae.files import whole_folder
from jaxsae.lm import sharding
from jaxsae.lm.config import GemmaConfig
from jaxsae.lm.formats import folder, official
from jaxsae.lm.gemma import init_params
from jaxsae.lm.lm import Lm
from jaxsae.lm.tokenizer import find_tokenizer

SHIPPED = {"gemma2-tiny": pathlib.Path(__file__).parent / "tiny"}


def load_lm(
  name_or_path,
  *,
  dtype=None,
  mesh: Mesh | None = None,
  fsdp: bool = False,
  config: GemmaConfig | None = None,
  tokenizer=None,
) -> Lm:
  """Loads a Gemma 2 or 3, one parameter at a time, onto the mesh.

  Args:
    name_or_path: a Hugging Face directory (`config.json`, `*.safetensors`) or
      an official Orbax checkpoint, here or under `gs://`; `"gemma2-tiny"`,
      which ships with jaxsae; or, where the package `gemma` is installed, one
      of its checkpoints by name, such as `"gemma2-2b-pt"`.
    dtype: of the weights and the arithmetic; by default float32 on CPU and
      bfloat16 elsewhere.
    mesh: where the weights go; by default the first device.
    fsdp: split the weights over the mesh's `data` axis too.
    config: the sizes of an Orbax checkpoint that is none of the published
      models; all others say their sizes themselves.
    tokenizer: path of a `tokenizer.model` or `tokenizer.json`; by default the
      one that lies beside the weights, if any.

  Raises:
    UserError: names what is missing, surplus, of the wrong shape or type, or
      the mesh's axis that does not divide the model.
  """
  name = str(name_or_path)
  path, tokenizer = _locate(name, tokenizer)
  source = _source(path, name)
  config = config or source.read_config(path)
  place = sharding.placement(config, mesh, fsdp)
  params = source.read_params(path, config, dtype or default_dtype(), place)
  found = find_tokenizer(tokenizer or path, config)
  return Lm(params, config, found, name, mesh)


def read_sizes(name_or_path) -> GemmaConfig:
  """The sizes of what `load_lm` would load, without the weights.

  For an official name nothing is read, and nothing needs to be installed.

  Raises:
    UserError: there is no language model.
  """
  name = str(name_or_path)
  if official.is_name(name):
    return official.sizes(name)
  path, _ = _locate(name, None)
  return _source(path, name).read_config(path)


def default_dtype():
  """bfloat16, but float32 on CPU, which has no fast bfloat16."""
  return jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16


def save_lm(lm: Lm, path, dtype=jnp.bfloat16) -> None:
  """Writes a new Hugging Face directory that `load_lm` reads back."""
  path = pathlib.Path(path)
  if path.exists():
    raise UserError(f"{path} exists; remove it or choose another path.")
  with whole_folder(path) as partial:
    folder.write(lm, partial, dtype)


def _locate(name: str, tokenizer):
  """Where the weights and, unless it lies beside them, the tokenizer are."""
  from etils import epath  # paths that may begin with gs://

  if name in SHIPPED:
    return epath.Path(SHIPPED[name]), tokenizer
  if official.is_name(name):
    path, its_own = official.locate(name)
    return path, tokenizer or its_own
  return epath.Path(name), tokenizer


def _source(path, name: str):
  """The module that reads what lies at the path."""
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
  """Whether a file exists; the first look at what may be in a bucket."""
  try:
    return file.exists()
  except ImportError as error:
    raise UserError(
      f"Reading {file} needs a package; run `pip install gcsfs`."
    ) from error
  except Exception as error:  # each backend of epath raises its own kinds
    reason = str(error).strip().partition("\n")[0]
    raise UserError(
      f"{file} is out of reach ({reason or type(error).__name__}); look at the"
      " path, the network and your credentials."
    ) from error


def abstract_lm(
  config: GemmaConfig, mesh: Mesh, fsdp: bool = False, dtype=jnp.bfloat16
) -> Lm:
  """A language model as shapes and shardings, without any arrays.

  Args:
    config: its sizes.
    mesh: of devices that need not exist here.
    fsdp: whether weights are split over `data` too.
    dtype: of the weights.
  """
  place = sharding.placement(config, mesh, fsdp)

  def lay(path, x):
    layout = place(tuple(key.key for key in path))
    return jax.ShapeDtypeStruct(x.shape, dtype, sharding=layout)

  return Lm(jax.tree.map_with_path(lay, _shapes(config)), config, mesh=mesh)


@functools.cache  # it takes a second, and plans ask for it often
def _shapes(config: GemmaConfig):
  return jax.eval_shape(lambda: init_params(config, jax.random.key(0)))
