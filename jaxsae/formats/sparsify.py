"""EleutherAI sparsify's `cfg.json` and `sae.safetensors`, which are only read.

  latents = the k largest of relu((x - b_dec) weightᵀ + bias)
  x̂ = latents W_dec + b_dec [+ x W_skipᵀ]

on raw activations x; a transcoder (`transcode`) takes no b_dec from x. A folder
is named by a module of Hugging Face, such as `layers.12`, whose output it is.
(github.com/EleutherAI/sparsify at 9d3b136, `sparsify/sparse_coder.py`.)

Shapes: D_in width of what is read, D of what is written, F latents.
"""

import re
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from etils import epath

from jaxsae.errors import UserError
from jaxsae.files import given_path, is_file
from jaxsae.formats import tensors
from jaxsae.formats.arrays import check_shapes, check_values
from jaxsae.formats.format import Path
from jaxsae.formats.published import Published
from jaxsae.lm import Site, Taps
from jaxsae.sae.model import Sae

FILE, CONFIG = "sae.safetensors", "cfg.json"
_ARRAYS = {"encoder.weight", "encoder.bias", "W_dec", "b_dec"}
_LAYER = re.compile(r"(?:model\.)?layers\.([0-9]{1,4})")
_ONLY_READ = "sparsify's format is only read; use another --format."


class Sparsify:
  """Sparsify's format, as one of `FORMATS`."""

  name = "sparsify"
  accepts = f"a directory that holds sparsify's {CONFIG} and {FILE}"

  def matches(self, path: Path) -> bool:
    """Returns whether a folder has the weights under their name."""
    return is_file(_folder(path) / FILE)

  def read(self, path: Path) -> Published:
    """Reads a folder; its name tells the site where it is a layer's."""
    folder = _folder(path)
    config = tensors.read_config(folder / CONFIG)
    transcodes = bool(config.get("transcode", False))
    k = _k(config, folder / CONFIG)
    arrays = _read(folder / FILE, transcodes)
    width = len(arrays["W_dec"])
    if k > width:
      raise UserError(f"{folder / CONFIG} has k={k} of {width} latents.")
    layer = _LAYER.fullmatch(folder.name)
    site = Site("resid", int(layer[1])) if layer and not transcodes else None
    skip = arrays.get("W_skip")
    sae = Sae(
      w_enc=jnp.asarray(arrays["W_enc"]),
      b_enc=jnp.asarray(arrays["b_enc"]),
      w_dec=jnp.asarray(arrays["W_dec"]),
      b_dec=jnp.asarray(arrays["b_dec"]),
      threshold=jnp.zeros(width, jnp.float32),
      w_skip=None if skip is None else jnp.asarray(skip.T),
      k=k,
    )
    return Published(
      sae,
      None if site is None else Taps.of(site),
      recipe=config,
      metrics={"l0": float(k)},
    )

  def check(self, published: Published) -> None:
    """Raises UserError, for nothing is written."""
    raise UserError(_ONLY_READ)

  def write(self, published: Published, path: Path) -> None:
    """Raises UserError, for nothing is written."""
    raise UserError(_ONLY_READ)

  def place(self, published: Published) -> str:
    """Raises UserError, for nothing is written."""
    raise UserError(_ONLY_READ)


def _folder(path: Path) -> epath.Path:
  path = given_path(path)
  return path.parent if path.name in (FILE, CONFIG) else path


def _k(config: Mapping[str, Any], file: epath.Path) -> int:
  """Returns k, if the activation is TopK."""
  k, activation = config.get("k"), config.get("activation", "topk")
  if activation != "topk":
    raise UserError(
      f"{file} has activation={activation!r}; only topk can be read."
    )
  if type(k) is not int or k < 1:
    raise UserError(f"{file} has k={k!r}; it must be 1 or more.")
  return k


def _read(file: epath.Path, transcodes: bool) -> dict[str, np.ndarray]:
  """Reads the arrays under the names of other formats, W_enc on raw x."""
  found = tensors.read_arrays(file)
  skip = {"W_skip"} & found.keys()
  tensors.check_names(found, _ARRAYS | skip, file)
  weight = found.pop("encoder.weight")
  arrays = {"b_enc": found.pop("encoder.bias"), **found, "W_enc": weight.T}
  shapes = {name: arrays[name].shape for name in arrays.keys() - skip}
  check_shapes(shapes | {"threshold": arrays["b_enc"].shape}, file)
  wanted = (arrays["W_dec"].shape[1], arrays["W_enc"].shape[0])
  if skip and arrays["W_skip"].shape != wanted:
    raise UserError(
      f"W_skip in {file} has shape {arrays['W_skip'].shape}, not {wanted}."
    )
  check_values(arrays | {"threshold": np.zeros(1)}, file)
  if not transcodes:
    shift = arrays["b_dec"].astype(np.float64) @ arrays["W_enc"]
    arrays["b_enc"] = (arrays["b_enc"] - shift).astype(np.float32)
  return arrays
