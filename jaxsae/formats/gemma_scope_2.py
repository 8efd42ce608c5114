"""Gemma Scope 2's `params.safetensors` and `config.json`.

  latents = relu(pre) · (pre > threshold), pre = x w_enc + b_enc
  x̂ = latents w_dec + b_dec [+ x affine_skip_connection]

on raw activations x, in float32. Transcoders read the MLP's input after its
norm, gain included, as ours do. Some folders lack `config.json`; there only the
path tells the site. (Files at huggingface.co/google/gemma-scope-2-1b-pt and its
siblings; their layout as in SAELens 6.54.12, `get_gemma_3_config_from_hf`.)

Shapes: D_in width of the site read, D of the one written, F latents.
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from etils import epath

from jaxsae.errors import UserError
from jaxsae.files import given_path, is_file
from jaxsae.formats import names, tensors
from jaxsae.formats.arrays import NAMES, Arrays, check, check_one_width
from jaxsae.formats.folding import to_sae
from jaxsae.formats.format import Path
from jaxsae.formats.gemma_scope import width_label
from jaxsae.formats.published import Published, figures
from jaxsae.lm import Taps
from jaxsae.lm.sites import HUGGING_FACE
from jaxsae.sae.model import Sae

FILE, CONFIG = "params.safetensors", "config.json"
_SKIP = "affine_skip_connection"  # [D_in, D]

# Our kind of taps → the folder.
_FOLDERS = {
  "resid": "resid_post",
  "mlp": "mlp_out",
  "attn": "attn_out",
  "transcoder": "transcoder",
}
_PLACE = re.compile(
  rf"(?:.*/)?(?P<kind>{'|'.join(_FOLDERS.values())})(?:_all)?"
  r"/layer_(?P<layer>[0-9]{1,4})_width_[^/]+"
)


class GemmaScope2:
  """Gemma Scope 2's format, as one of `FORMATS`."""

  name = "gemma_scope_2"
  accepts = f"Gemma Scope 2's {FILE}"

  def matches(self, path: Path) -> bool:
    """Returns whether a folder has the weights under their name."""
    return is_file(tensors.folder_at(path, FILE, CONFIG) / FILE)

  def read(self, path: Path) -> Published:
    """Reads a folder; its configuration or its path tells the site."""
    folder = tensors.folder_at(path, FILE, CONFIG)
    sae = _read(folder / FILE)
    if not is_file(folder / CONFIG):
      return Published(sae, _taps_of_path(folder))
    config = tensors.read_config(folder / CONFIG)
    _check_architecture(config, sae, folder / CONFIG)
    hook, written = (config.get(f"hf_hook_point_{x}") for x in ("in", "out"))
    return Published(
      sae,
      names.taps_of(hook, written) or _taps_of_path(folder),
      model=names.our_model(config.get("model_name")),
      recipe=config,
      metrics=figures({"l0": config.get("l0")}),
    )

  def check(self, published: Published) -> None:
    """Raises UserError for TopK and for several sites."""
    sae = published.sae
    if sae.k is not None:
      raise UserError(
        f"A TopK autoencoder (k={sae.k}) cannot be written in Gemma Scope 2's"
        " JumpReLU format, in which each latent has its own threshold."
      )
    _kind(published)

  def write(self, published: Published, path: Path) -> None:
    """Writes both files into a folder."""
    self.check(published)
    if published.before_gain and _kind(published) == "transcoder":
      raise UserError(
        f"{published.taps} reads the MLP's input before the gain of its norm,"
        " and Gemma Scope 2's transcoders read it after; convert it with"
        " jaxsae.formats.gemma_scope.from_published, or use another --format."
      )
    folder, sae = given_path(path), published.sae
    arrays = {f: np.asarray(getattr(sae, f), np.float32) for f in NAMES}
    if sae.w_skip is not None:
      arrays[_SKIP] = np.asarray(sae.w_skip, np.float32)
    check(_named(arrays), folder / FILE, _SKIP)
    text = tensors.json_text(_config(published))
    tensors.write(arrays, folder / FILE, text, folder / CONFIG)

  def place(self, published: Published) -> str:
    """Returns the folder that its site, width and L0 have."""
    taps, l0 = published.taps_and_l0()
    width = width_label(published.sae.width)
    affine = "" if published.sae.w_skip is None else "_affine"
    leaf = f"layer_{taps.reads[0].layer}_width_{width}_l0_{l0}{affine}"
    return f"{_FOLDERS[_kind(published)]}/{leaf}"


def _read(file: epath.Path) -> Sae:
  found = tensors.read_arrays(file)
  tensors.check_names(found, set(NAMES) | ({_SKIP} & found.keys()), file)
  arrays = _named(found)
  check_one_width(arrays["W_enc"], arrays["W_dec"], file)
  return to_sae(arrays, file, skip=_SKIP)


def _named(arrays: Arrays) -> Arrays:
  """Returns arrays under the names that all formats have in messages."""
  return {NAMES.get(name, name): x for name, x in arrays.items()}


def _check_architecture(config: Mapping[str, Any], sae: Sae, file) -> None:
  kind, affine = config.get("architecture"), config.get("affine_connection")
  if kind != "jump_relu":
    raise UserError(
      f"{file} has the architecture {kind!r}; Gemma Scope 2's is 'jump_relu'."
    )
  if affine is not None and bool(affine) != (sae.w_skip is not None):
    raise UserError(
      f"{file} has affine_connection={affine!r}, and the file beside it has"
      f" {'no' if affine else 'an'} {_SKIP}; put each with its own."
    )


def _taps_of_path(folder: epath.Path) -> Taps | None:
  found = _PLACE.fullmatch(folder.absolute().as_posix())
  if found is None:
    return None
  kind = next(ours for ours, x in _FOLDERS.items() if x == found["kind"])
  return Taps.parse(f"{kind}.{int(found['layer'])}")


def _kind(published: Published) -> str:
  """Returns the kind of taps; raises UserError if there is no folder for it."""
  taps = published.taps
  if taps is None or taps.kind not in _FOLDERS:
    raise UserError(
      f"{taps or 'An autoencoder of unknown sites'} has no folder in Gemma"
      " Scope 2's release, which has autoencoders of one site and transcoders;"
      " use another --format."
    )
  return taps.kind


def _config(published: Published) -> dict[str, Any]:
  """Returns `config.json`; what is not known is left out."""
  taps, sae = published.taps, published.sae
  assert taps is not None  # as `check` says
  known = {
    "architecture": "jump_relu",
    "model_name": names.their_model(published.model),
    "type": "transcoder" if taps.transcodes else "sae",
    "hf_hook_point_in": names.name_of(taps.reads[0], HUGGING_FACE),
    "hf_hook_point_out": names.name_of(taps.writes[0], HUGGING_FACE),
    "width": sae.width,
    "l0": published.metrics.get("l0"),
    "affine_connection": sae.w_skip is not None,
  }
  return {name: value for name, value in known.items() if value is not None}
