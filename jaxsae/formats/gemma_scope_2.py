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

import jax.numpy as jnp
import numpy as np
from etils import epath

from jaxsae.errors import UserError
from jaxsae.files import given_path, is_file
from jaxsae.formats import names, tensors
from jaxsae.formats.arrays import check_shapes, check_values
from jaxsae.formats.format import Path
from jaxsae.formats.gemma_scope import width_label
from jaxsae.formats.published import Published
from jaxsae.lm import Taps
from jaxsae.lm.sites import HUGGING_FACE
from jaxsae.sae.model import Sae

FILE, CONFIG = "params.safetensors", "config.json"
_SKIP = "affine_skip_connection"  # [D_in, D]

# Our field → the array's name in other formats, which errors use.
_ARRAYS = {
  "w_enc": "W_enc",  # [D_in, F]
  "b_enc": "b_enc",  # [F]
  "w_dec": "W_dec",  # [F, D]
  "b_dec": "b_dec",  # [D]
  "threshold": "threshold",  # [F]
}

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
_MODEL = re.compile(r"(?:google/)?gemma-v?3-(270m|1b|4b|12b|27b)-(pt|it)")
_OURS = re.compile(r"gemma3-(270m|1b|4b|12b|27b)-(pt|it)")


class GemmaScope2:
  """Gemma Scope 2's format, as one of `FORMATS`."""

  name = "gemma_scope_2"
  accepts = f"a directory that holds Gemma Scope 2's {FILE}"

  def matches(self, path: Path) -> bool:
    """Returns whether a folder has the weights under their name."""
    return is_file(_folder(path) / FILE)

  def read(self, path: Path) -> Published:
    """Reads a folder; its configuration or its path tells the site."""
    folder = _folder(path)
    sae = _read(folder / FILE)
    if not is_file(folder / CONFIG):
      return Published(sae, _taps_of_path(folder))
    config = tensors.read_config(folder / CONFIG)
    _check_architecture(config, sae, folder / CONFIG)
    hook, written = (config.get(f"hf_hook_point_{x}") for x in ("in", "out"))
    model = config.get("model_name")
    found = _MODEL.fullmatch(model) if isinstance(model, str) else None
    l0 = config.get("l0")
    return Published(
      sae,
      names.taps_of(hook, written) or _taps_of_path(folder),
      model=f"gemma3-{found[1]}-{found[2]}" if found else None,
      recipe=config,
      metrics={"l0": float(l0)} if isinstance(l0, int | float) else {},
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
    gain = published.input_gain
    if gain is not None and (gain == 1).all():
      raise UserError(
        f"{published.taps} reads the MLP's input before the gain of its norm,"
        " and Gemma Scope 2's transcoders read it after; convert it with"
        " jaxsae.formats.gemma_scope.from_published, or use another --format."
      )
    folder, sae = given_path(path), published.sae
    arrays = {f: np.asarray(getattr(sae, f), np.float32) for f in _ARRAYS}
    _check(arrays, folder / FILE)
    if sae.w_skip is not None:
      arrays[_SKIP] = np.asarray(sae.w_skip, np.float32)
    try:
      tensors.write(arrays, folder / FILE, _config(published), folder / CONFIG)
    except OSError as error:
      raise UserError(
        f"{folder} cannot be written ({error.strerror}); choose a place that"
        " has room and that you may write to."
      ) from error

  def place(self, published: Published) -> str:
    """Returns the folder that its site, width and L0 have."""
    l0 = published.metrics.get("l0")
    if published.taps is None or l0 is None:
      raise UserError(
        "Gemma Scope 2's folders are named after site and L0, which are not"
        " both known; give the record taps and metrics={'l0': …}."
      )
    width = width_label(published.sae.width)
    affine = "" if published.sae.w_skip is None else "_affine"
    layer = published.taps.reads[0].layer
    leaf = f"layer_{layer}_width_{width}_l0_{round(l0)}{affine}"
    return f"{_FOLDERS[_kind(published)]}/{leaf}"


def _folder(path: Path) -> epath.Path:
  path = given_path(path)
  return path.parent if path.name in (FILE, CONFIG) else path


def _read(file: epath.Path) -> Sae:
  arrays = tensors.read_arrays(file)
  skip = arrays.pop(_SKIP, None)
  tensors.check_names(arrays, set(_ARRAYS), file)
  _check(arrays, file)
  wanted = (arrays["w_enc"].shape[0], arrays["w_dec"].shape[1])
  if skip is not None and skip.shape != wanted:
    raise UserError(f"{_SKIP} in {file} has shape {skip.shape}, not {wanted}.")
  if skip is not None and not np.isfinite(skip).all():
    raise UserError(f"{_SKIP} in {file} has values that are not finite.")
  fields: dict[str, Any] = {f: jnp.asarray(arrays[f]) for f in _ARRAYS}
  return Sae(**fields, w_skip=None if skip is None else jnp.asarray(skip))


def _check(arrays: Mapping[str, np.ndarray], file: epath.Path) -> None:
  """Raises UserError for arrays that are no autoencoder."""
  named = {_ARRAYS[field]: x for field, x in arrays.items()}
  check_shapes({name: x.shape for name, x in named.items()}, file)
  check_values(named, file)


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
  found = _OURS.fullmatch(published.model or "")
  known = {
    "architecture": "jump_relu",
    "model_name": f"gemma-3-{found[1]}-{found[2]}"
    if found
    else published.model,
    "type": "transcoder" if taps.transcodes else "sae",
    "hf_hook_point_in": names.name_of(taps.reads[0], HUGGING_FACE),
    "hf_hook_point_out": names.name_of(taps.writes[0], HUGGING_FACE),
    "width": sae.width,
    "l0": published.metrics.get("l0"),
    "affine_connection": sae.w_skip is not None,
  }
  return {name: value for name, value in known.items() if value is not None}
