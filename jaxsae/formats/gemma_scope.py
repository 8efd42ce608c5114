"""Gemma Scope's `params.npz`: five float32 arrays and nothing else.

  latents = relu(pre) · (pre > threshold), pre = x W_enc + b_enc
  x̂ = latents W_dec + b_dec

on raw activations x. Only the folder's name tells the site.
(Lieberum et al., arXiv 2408.05147; files at huggingface.co/google/gemma-scope.)

A transcoder's file has the same five arrays. It reads the MLP's input before
the norm's gain (the paper's appendix B), but `Taps.transcoder(layer)` reads
it after the gain, as Gemma Scope 2 does; `to_published` and `from_published`
convert between the two.

Shapes: D_in width of the site read, D of the one written, F latents.
"""

import dataclasses
import re
import zipfile
from typing import Any

import numpy as np
from etils import epath

from jaxsae.errors import UserError
from jaxsae.files import given_path, is_file, refusals_told, whole_file
from jaxsae.formats import npz
from jaxsae.formats.arrays import (
  NAMES,
  check,
  check_memory,
  check_one_width,
  check_shapes,
)
from jaxsae.formats.folding import to_sae
from jaxsae.formats.format import Path
from jaxsae.formats.published import Published
from jaxsae.lm import Lm
from jaxsae.lm.sites import GEMMA_SCOPE, PAIRS, WHERE, Place, Taps
from jaxsae.origin import mark, origin_of
from jaxsae.sae.model import Sae

FILE = "params.npz"

# The first part of a place → our site; the first transcoders' repository is
# named in the plural.
_SITES = {
  **{name: where for where, name in GEMMA_SCOPE.items()},
  "transcoders": "transcoder",
  "mlp_in": "mlp_in",
}

# A file in a folder named by `folder`, or in a repository, which may lie in the
# cache of Hugging Face: there, as published, the model comes with the site.
_PLACE = re.compile(
  r"(?:.*/)?"
  r"(?:(?:models--google--)?gemma-scope-(?P<model>[0-9]+b-[pi]t)-)?"
  rf"(?P<site>{'|'.join(_SITES)})"
  r"(?:/snapshots/[^/]+)?"
  r"/layer_(?P<layer>[0-9]+)"
  r"/width_(?P<width>[0-9]+[km]?)"
  r"/average_l0_(?P<l0>[0-9]+)(?:_[0-9]+)?"
  rf"/{re.escape(FILE)}"
)


class GemmaScope:
  """Gemma Scope's format, as one of `FORMATS`."""

  name = "gemma_scope"
  accepts = "a Gemma Scope .npz file or a directory that holds params.npz"

  def matches(self, path: Path) -> bool:
    """Returns whether it is an `.npz` that is damaged or has such an array."""
    file = _file_at(path)
    if file.suffix != ".npz" or not is_file(file):
      return False
    names = npz.names(file)
    return names is None or any(
      _as_published(n) in NAMES.values() for n in names
    )

  def read(self, path: Path) -> Published:
    """Reads a file; a published path tells its site, L0 and model too."""
    file = _file_at(path)
    sae = read(file)
    place = _PLACE.fullmatch(file.absolute().as_posix())
    if place is None or place["width"] != width_label(sae.width):
      return Published(sae, before_gain=True)
    taps = Taps.parse(f"{_SITES[place['site']]}.{int(place['layer'])}")
    check_one_width(sae.w_enc, sae.w_dec, file)
    return Published(
      sae,
      taps,
      model=place["model"] and f"gemma2-{place['model']}",
      metrics={"l0": float(place["l0"])},
      before_gain=True,
    )

  def check(self, published: Published) -> None:
    """Raises UserError for TopK, an affine skip, or several sites."""
    _check_kind(published.sae)
    self.place(published)

  def write(self, published: Published, path: Path) -> None:
    """Writes `params.npz` into a folder; a transcoder's gain is taken out."""
    write(without_gain(published), given_path(path) / FILE)

  def place(self, published: Published) -> str:
    """Returns the folder that its site, width and L0 have."""
    taps, l0 = published.taps_and_l0()
    return folder(taps, published.sae.width, l0)


def folder(place: Place, width: int, l0: float) -> str:
  """Returns the folder in which Gemma Scope keeps such an autoencoder.

  `folder(Site("resid", 20), 16_384, 71.2)` is
  `"res/layer_20/width_16k/average_l0_71"`. Gemma Scope publishes the first
  part as one repository per model. At `mlp_in`, where Gemma Scope published
  nothing, the first part is the site's own name.

  Raises:
    UserError: the autoencoder has several sites, and is no transcoder.
  """
  taps = Taps.of(place)
  where, _, layer = str(taps).rpartition(".")
  if where not in WHERE | PAIRS:
    raise UserError(
      f"{taps} has no folder in Gemma Scope's release, which has only"
      " autoencoders of one site and transcoders; use another --format."
    )
  return (
    f"{GEMMA_SCOPE.get(where, where)}/layer_{layer}"
    f"/width_{width_label(width)}/average_l0_{round(l0)}"
  )


def width_label(width: int) -> str:
  """Writes a width like Gemma Scope: 16,384 → 16k, 1,048,576 → 1m."""
  if width < 1024 or width & (width - 1):  # too small, or not a power of two
    return str(width)
  return f"{width // 1000}k" if width < 1_000_000 else f"{width // 10**6}m"


def to_published(sae: Sae, place: Place, lm: Lm | None) -> Sae:
  """Converts to the autoencoder that Gemma Scope's file would hold.

  Args:
    sae: an autoencoder or transcoder of raw activations.
    place: its site or taps. A transcoder reads gain ⊙ n, with n the MLP's
      input before the norm's gain, so W_enc' = diag(gain) W_enc reads n;
      likewise W_skip'. Autoencoders of other sites are returned unchanged.
    lm: the language model, which has the gain; needed only for transcoders.
  """
  taps = Taps.of(place)
  return without_gain(Published(sae, taps, input_gain(lm, taps)))


def from_published(sae: Sae, place: Place, lm: Lm) -> Sae:
  """Converts what `read` or `load_sae` returns; the inverse of `to_published`.

  Raises:
    UserError: the norm has a gain of 0, so the site lacks some of the values
      that the transcoder reads.
  """
  taps = Taps.of(place)
  if not _is_transcoder(taps):
    return sae
  gain = lm.norm_gain(taps.reads[0])
  if not gain.all():
    raise UserError(
      f"The norm before {taps} has a gain of 0, so some values that a published"
      " transcoder reads are lost; use the language model it was trained on."
    )
  return _moved(sae, _rescale_input(sae, 1 / gain))


def _moved(published: Sae, ours: Sae) -> Sae:
  """Notes on our transcoder what was noted on the published one."""
  origin = origin_of(published)
  if origin is None:
    return ours
  return mark(ours, dataclasses.replace(origin, before_gain=False))


def input_gain(lm: Lm | None, taps: Taps) -> np.ndarray | None:
  """Returns the gain [D_in] that a transcoder's input includes.

  None for other sites, and where there is no language model to read it from.
  """
  if lm is None or not _is_transcoder(taps):
    return None
  return lm.norm_gain(taps.reads[0])


def without_gain(published: Published) -> Sae:
  """Converts to the autoencoder whose input does not include the gain.

  Raises:
    UserError: it is a transcoder, and the gain is not known.
  """
  check_gain(published)
  if not _has_gain(published):
    return published.sae
  return _rescale_input(published.sae, np.asarray(published.input_gain))


def check_gain(published: Published) -> None:
  """Raises UserError if the gain in a transcoder's input is not known."""
  if _has_gain(published) and published.input_gain is None:
    raise UserError(
      f"{published.taps} cannot be written without its language model, whose"
      " norm has a gain that this format leaves out; give lm=, or --lm= to"
      " jaxsae convert."
    )


def _has_gain(published: Published) -> bool:
  """Returns whether it is a transcoder whose input includes the gain."""
  taps = published.taps
  return taps is not None and _is_transcoder(taps) and not published.before_gain


def _is_transcoder(taps: Taps) -> bool:
  return taps.kind == "transcoder"


def _rescale_input(sae: Sae, factor: np.ndarray) -> Sae:
  """Rescales W_enc and W_skip for an input divided by `factor` [D_in]."""
  skip = None if sae.w_skip is None else factor[:, None] * sae.w_skip
  return dataclasses.replace(
    sae, w_enc=factor[:, None] * sae.w_enc, w_skip=skip
  )


def write(sae: Sae, path: Path) -> None:
  """Writes one autoencoder to a new `.npz` file, atomically.

  Args:
    sae: an autoencoder of raw activations, as `sae.fold` returns; a transcoder
      as `to_published` returns it.
    path: the file, `params.npz` by convention; its folders are made.

  Raises:
    UserError: the file exists or cannot be written, or the autoencoder is a
      stack, is not finite, or has parts that the format cannot hold.
  """
  path = given_path(path)
  _check_kind(sae)
  arrays: dict[str, Any] = {
    name: np.asarray(getattr(sae, field), np.float32)
    for field, name in NAMES.items()
  }
  check(arrays, path)
  if path.exists():
    raise UserError(f"{path} exists; remove it or choose another path.")
  with (
    refusals_told(path),
    whole_file(path) as partial,
    partial.open("wb") as f,
  ):
    np.savez(f, **arrays)


def _check_kind(sae: Sae) -> None:
  """Raises UserError for an autoencoder that the format cannot hold."""
  if sae.k is not None:
    raise UserError(
      f"A TopK autoencoder (k={sae.k}) cannot be written in Gemma Scope's"
      " JumpReLU format, in which each latent has its own threshold."
    )
  if sae.w_skip is not None:
    raise UserError(
      "A transcoder with an affine skip cannot be written in Gemma Scope's"
      f" format; {FILE} has no place for W_skip."
    )


def read(path: Path) -> Sae:
  """Reads a `params.npz`; lower-case `w_enc` and `w_dec` are accepted too.

  A published transcoder reads before a norm's gain; see `from_published`.

  The file is not trusted: pickle is not allowed, and memory is allocated only
  after an array's size, type and shape are checked.

  Raises:
    UserError: an array is missing or wrong; names the file and the array.
  """
  path = given_path(path)
  try:
    with npz.open_zip(path) as archive:
      arrays = _read(archive, path)
  except OSError as error:
    raise UserError(
      f"{path} cannot be read ({error.strerror}); give a {FILE}."
    ) from error
  return to_sae(arrays, path)


def _file_at(path: Path) -> epath.Path:
  """Returns the file at a path that is a file or its folder."""
  path = given_path(path)
  return path / FILE if path.is_dir() else path


def _read(archive: zipfile.ZipFile, path: Path) -> dict[str, np.ndarray]:
  members = _members(archive, path)
  shapes = {
    name: npz.shape(archive, member, f"{name} in {path}")
    for name, member in members.items()
  }
  check_shapes(shapes, path)
  check_memory(shapes.values(), path)
  return {
    name: npz.array(archive, member, f"{name} in {path}")
    for name, member in members.items()
  }


def _members(
  archive: zipfile.ZipFile, path: Path
) -> dict[str, zipfile.ZipInfo]:
  """Maps array names to zip members; raises unless all five are there once."""
  members: dict[str, zipfile.ZipInfo] = {}
  for member in archive.infolist():
    name = _as_published(npz.name_of(member))
    if name not in NAMES.values() or name in members:
      raise UserError(
        f"{path} holds {member.filename!r} beside the arrays of Gemma Scope"
        f" ({', '.join(NAMES.values())}); the file is in another format."
      )
    members[name] = member
  missing = [name for name in NAMES.values() if name not in members]
  if missing:
    raise UserError(
      f"{path} lacks {', '.join(missing)}; Gemma Scope's files hold"
      f" {', '.join(NAMES.values())}."
    )
  return members


def _as_published(name: str) -> str:
  """Writes the name of an array as in Gemma Scope: w_enc → W_enc."""
  return f"W_{name[2:]}" if name.startswith("w_") else name
