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

from etils import epath

from jaxsae.errors import UserError
from jaxsae.files import is_file
from jaxsae.formats import folding, tensors
from jaxsae.formats.arrays import SKIP, Arrays, check
from jaxsae.formats.format import Path, ReadOnly
from jaxsae.formats.published import Published
from jaxsae.lm import Site, Taps

FILE, CONFIG = "sae.safetensors", "cfg.json"
_ARRAYS = {"encoder.weight", "encoder.bias", "W_dec", "b_dec"}
_LAYER = re.compile(r"(?:model\.)?layers\.([0-9]{1,4})")


class Sparsify(ReadOnly):
  """Sparsify's format, as one of `FORMATS`."""

  name = "sparsify"
  accepts = f"sparsify's {FILE} with its {CONFIG}"

  def matches(self, path: Path) -> bool:
    """Returns whether a folder has the weights under their name."""
    return is_file(tensors.folder_at(path, FILE, CONFIG) / FILE)

  def read(self, path: Path) -> Published:
    """Reads a folder; its name tells the site where it is a layer's."""
    folder = tensors.folder_at(path, FILE, CONFIG)
    config = tensors.read_config(folder / CONFIG)
    arrays = _arrays(folder / FILE)
    k = _k(config, len(arrays["W_dec"]), folder / CONFIG)
    transcodes = bool(config.get("transcode", False))
    if not transcodes:
      arrays = folding.without_shift(arrays, folder / FILE)
    layer = _LAYER.fullmatch(folder.name)
    site = Site("resid", int(layer[1])) if layer and not transcodes else None
    return Published(
      folding.to_sae(arrays, folder / FILE, k),
      None if site is None else Taps.of(site),
      recipe=config,
      metrics={"l0": float(k)},
    )


def _k(config: Mapping[str, Any], width: int, file: epath.Path) -> int:
  """Returns k, if the activation is TopK."""
  activation = config.get("activation", "topk")
  if activation != "topk":
    raise UserError(
      f"{file} has activation={activation!r}; only topk can be read."
    )
  return tensors.checked_k(config.get("k"), width, file)


def _arrays(file: epath.Path) -> Arrays:
  """Reads the arrays under our names, with the biases that sparsify has."""
  found = tensors.read_arrays(file)
  tensors.check_names(found, _ARRAYS | ({SKIP} & found.keys()), file)
  found["W_enc"] = found.pop("encoder.weight").T
  found["b_enc"] = found.pop("encoder.bias")
  if SKIP in found:
    found[SKIP] = found[SKIP].T
  check(found, file)
  return found
