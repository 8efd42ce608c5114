"""Language models from disk, straight onto the mesh, and back."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxsae.errors import UserError
from jaxsae.files import whole_folder
from jaxsae.lm import huggingface, sharding
from jaxsae.lm.config import GemmaConfig
from jaxsae.lm.lm import Lm
from jaxsae.lm.tokenizer import Tokenizer

SHIPPED = {"gemma2-tiny": pathlib.Path(__file__).parent / "tiny"}


def load_lm(name_or_path, *, dtype=None, mesh: Mesh | None = None) -> Lm:
  """Loads a Gemma 2 from a Hugging Face directory.

  Args:
    name_or_path: a directory with `config.json`, `*.safetensors` and maybe
      `tokenizer.model`; or `"gemma2-tiny"`, the model that ships with jaxsae.
    dtype: of the weights and the arithmetic; by default float32 on CPU and
      bfloat16 elsewhere.
    mesh: where the weights go; by default the first device.

  Raises:
    UserError: names what is missing, surplus or of the wrong shape.
  """
  path = SHIPPED.get(str(name_or_path), pathlib.Path(name_or_path))
  config = _read_config(path, str(name_or_path))
  if mesh is not None:
    sharding.check_divides(config, mesh.shape["model"])
  params = _read_params(path, config, dtype or default_dtype(), mesh)
  return Lm(params, config, _read_tokenizer(path, config), str(name_or_path))


def default_dtype():
  """bfloat16, but float32 on CPU, which has no fast bfloat16."""
  return jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16


def save_lm(lm: Lm, path, dtype=jnp.bfloat16) -> None:
  """Writes a new Hugging Face directory that `load_lm` reads back."""
  path = pathlib.Path(path)
  if path.exists():
    raise UserError(f"{path} exists; remove it or choose another path.")
  with whole_folder(path) as partial:
    _write(lm, partial, dtype)


def _read_config(path: pathlib.Path, name: str) -> GemmaConfig:
  file = path / "config.json"
  if not file.is_file():
    raise UserError(
      f"{name} is not a language model: no {file}. Give a directory with"
      f" config.json and safetensors, or one of {', '.join(SHIPPED)}."
    )
  try:
    data = json.loads(file.read_text())
  except ValueError as error:
    raise UserError(f"{file} is not JSON: {error}.") from error
  return huggingface.config_from_json(data, str(file))


def _read_params(path, config, dtype, mesh):
  tensors = _index(path)
  _check_names(config, tensors, path)
  params = {}
  for leaf in huggingface.leaves(config):
    parts = [_read(tensors[name], name, s) for name, s in leaf.names.items()]
    value = leaf.join(*parts).astype(dtype)
    where = None
    if mesh is not None:
      where = sharding.sharding(mesh, leaf.path, config)
    _insert(params, leaf.path, jax.device_put(value, where))
  return params


def _index(path: pathlib.Path) -> dict[str, pathlib.Path]:
  """Tensor name → the file that holds it."""
  from safetensors import SafetensorError, safe_open

  index = {}
  for file in sorted(path.glob("*.safetensors")):
    try:
      with safe_open(file, framework="flax") as tensors:
        index |= dict.fromkeys(tensors.keys(), file)
    except SafetensorError as error:
      raise UserError(f"{file} is damaged: {error}.") from error
  if not index:
    raise UserError(f"{path} holds no *.safetensors file.")
  index.pop("lm_head.weight", None)  # a copy of the tied embedding
  return index


def _check_names(config, tensors, path):
  wanted = {n for leaf in huggingface.leaves(config) for n in leaf.names}
  problems = [
    f"{what} {', '.join(sorted(names)[:3])}{' …' if len(names) > 3 else ''}"
    for what, names in (
      ("lacks", wanted - set(tensors)),
      ("has the unexpected", set(tensors) - wanted),
    )
    if names
  ]
  if problems:
    raise UserError(f"{path} does not match its config.json: it {problems[0]}.")


def _read(file: pathlib.Path, name: str, shape: tuple[int, ...]) -> np.ndarray:
  from safetensors import safe_open

  with safe_open(file, framework="flax") as tensors:
    found = tuple(tensors.get_slice(name).get_shape())
    if found != shape:
      raise UserError(
        f"{name} in {file} has shape {found}; config.json implies {shape}."
      )
    value = np.asarray(tensors.get_tensor(name))
  if not jnp.issubdtype(value.dtype, jnp.floating):
    raise UserError(f"{name} in {file} is of type {value.dtype}, not float.")
  return value


def _insert(tree: dict, path: tuple[str, ...], value) -> None:
  for key in path[:-1]:
    tree = tree.setdefault(key, {})
  tree[path[-1]] = value


def _read_tokenizer(path: pathlib.Path, config: GemmaConfig):
  file = path / "tokenizer.model"
  if not file.is_file():
    return None
  tokenizer = Tokenizer.load(file)
  if tokenizer.vocab_size > config.vocab_size:
    raise UserError(
      f"{file} has {tokenizer.vocab_size} pieces, more than the model's"
      f" vocab_size={config.vocab_size}; it belongs to another model."
    )
  return tokenizer


def _write(lm, path, dtype):
  from safetensors.flax import save

  tensors = {}
  for leaf in huggingface.leaves(lm.config):
    value = lm.params
    for key in leaf.path:
      value = value[key]
    parts = leaf.split(np.asarray(value))
    tensors |= {
      n: jnp.asarray(x, dtype) for n, x in zip(leaf.names, parts, strict=True)
    }
  (path / "model.safetensors").write_bytes(save(tensors))
  t = lm.tokenizer
  special = (t.bos, t.eos, t.pad) if t else (2, 1, 0)
  config = huggingface.config_to_json(lm.config, *special)
  (path / "config.json").write_text(json.dumps(config, indent=2) + "\n")
  if t:
    (path / "tokenizer.model").write_bytes(t.model)
