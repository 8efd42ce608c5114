"""Qwen Scope's `layer0.sae.pt` and so on, which are only read.

  latents = the k largest of relu(x W_encᵀ + b_enc)
  x̂ = latents W_decᵀ + b_dec

on raw activations x of the residual stream after the file's layer. Qwen's own
example has no relu, and differs where fewer than k values are above 0. k is in
no file: the repository's name has it, such as SAE-Res-Qwen3-8B-Base-W64K-L0_50.
(huggingface.co/Qwen/SAE-Res-Qwen3-8B-Base-W64K-L0_50 and its siblings; read as
in SAELens 6.54.12, `qwen_scope_sae_huggingface_loader`.)

Shapes: D width of the site, F latents.
"""

import re

from etils import epath

from jaxsae.errors import UserError
from jaxsae.files import given_path, is_file
from jaxsae.formats import folding, tensors, torch_zip
from jaxsae.formats.arrays import NAMES, check_one_width
from jaxsae.formats.format import Path, ReadOnly
from jaxsae.formats.published import Published
from jaxsae.lm import Site, Taps

_ARRAYS = set(NAMES.values()) - {"threshold"}
_FILE = re.compile(r"layer([0-9]{1,4})\.sae\.pt")
_K = re.compile(r"(?:.*-)?L0_([0-9]{1,9})")  # of a folder's name


class QwenScope(ReadOnly):
  """Qwen Scope's format, as one of `FORMATS`: each file is an autoencoder."""

  name = "qwen_scope"
  accepts = "Qwen Scope's layer….sae.pt"

  def matches(self, path: Path) -> bool:
    """Returns whether a file has the name of one."""
    file = given_path(path)
    return bool(_FILE.fullmatch(file.name)) and is_file(file)

  def read(self, path: Path) -> Published:
    """Reads a file; its name tells the layer, and a folder's name k."""
    file = given_path(path)
    layer = _FILE.fullmatch(file.name)
    if layer is None:
      raise UserError(f"{file} tells no layer; name it as in layer12.sae.pt.")
    arrays = dict(torch_zip.read(file))
    tensors.check_names(arrays, _ARRAYS, file)
    arrays |= {name: arrays[name].T for name in ("W_enc", "W_dec")}
    check_one_width(arrays["W_enc"], arrays["W_dec"], file)
    k = tensors.checked_k(_k(file), arrays["b_enc"].size, file)
    return Published(
      folding.to_sae(arrays, file, k),
      Taps.of(Site("resid", int(layer[1]))),
      metrics={"l0": float(k)},
    )


def _k(file: epath.Path) -> int:
  """Returns the k in the name of the nearest folder that has one."""
  folders = file.absolute().parents
  found = next(filter(None, (_K.fullmatch(x.name) for x in folders)), None)
  if found is None:
    raise UserError(
      f"{file} does not tell k; put it in a folder that is named as its"
      " repository, or as in L0_50."
    )
  return int(found[1])
