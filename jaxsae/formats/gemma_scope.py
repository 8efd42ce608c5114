"""Gemma Scope's `params.npz`: five float32 arrays and nothing else.

  latents = relu(pre) · (pre > threshold), pre = x W_enc + b_enc
  x̂ = latents W_dec + b_dec

on raw activations x. Only the folder's name tells the site.
(Lieberum et al., arXiv 2408.05147; files at huggingface.co/google/gemma-scope.)

A transcoder's file has the same five arrays. It reads the MLP's input before
the norm's gain (the paper's appendix B), but `Site("transcoder", layer)` reads
it after the gain, as Gemma Scope 2 does; `to_published` and `from_published`
convert between the two.

Shapes: D_in width of the site read, D of the one written, F latents.
"""

import math
import os
import pathlib
import zipfile
import zlib

import jax.numpy as jnp
import numpy as np

from jaxsae.errors import UserError
from jaxsae.files import whole_file
from jaxsae.lm import Lm
from jaxsae.lm.sites import GEMMA_SCOPE, Site
from jaxsae.sae.model import Sae

FILE = "params.npz"

# Our field → the array's name in the file.
_ARRAYS = {
  "w_enc": "W_enc",  # [D_in, F]
  "b_enc": "b_enc",  # [F]
  "w_dec": "W_dec",  # [F, D]
  "b_dec": "b_dec",  # [D]
  "threshold": "threshold",  # [F]
}

# Deflate cannot compress further than this, so a larger ratio is forged.
_MAX_RATIO = 1032


def folder(site: Site, width: int, l0: float) -> str:
  """Returns the folder in which Gemma Scope keeps such an autoencoder.

  `folder(Site("resid", 20), 16_384, 71.2)` is
  `"res/layer_20/width_16k/average_l0_71"`. Gemma Scope
  publishes the first part as one repository per model. At `mlp_in`, where Gemma
  Scope published nothing, the first part is the site's own name.
  """
  return (
    f"{GEMMA_SCOPE.get(site.where, site.where)}/layer_{site.layer}"
    f"/width_{width_label(width)}/average_l0_{round(l0)}"
  )


def width_label(width: int) -> str:
  """Writes a width like Gemma Scope: 16,384 → 16k, 1,048,576 → 1m."""
  if width < 1024 or width & (width - 1):  # too small, or not a power of two
    return str(width)
  return f"{width // 1000}k" if width < 1_000_000 else f"{width // 10**6}m"


def to_published(sae: Sae, site: Site, lm: Lm | None) -> Sae:
  """Converts to the autoencoder that Gemma Scope's file would hold.

  Args:
    sae: an autoencoder or transcoder of raw activations.
    site: its site. A transcoder reads gain ⊙ n, with n the MLP's input before
      the norm's gain, so W_enc' = diag(gain) W_enc reads n; likewise W_skip'.
      Autoencoders of other sites are returned unchanged.
    lm: the language model, which has the gain; needed only for transcoders.
  """
  if site.where != "transcoder":
    return sae
  if lm is None:
    raise UserError(
      f"{site} cannot be written in Gemma Scope's format without its language"
      " model, whose norm has a gain; give lm=."
    )
  return _rescale_input(sae, lm.norm_gain(site))


def from_published(sae: Sae, site: Site, lm: Lm) -> Sae:
  """Converts what `read` or `load_sae` returns; the inverse of `to_published`.

  Raises:
    UserError: the norm has a gain of 0, so the site lacks some of the values
      that the transcoder reads.
  """
  if site.where != "transcoder":
    return sae
  gain = lm.norm_gain(site)
  if not gain.all():
    raise UserError(
      f"The norm before {site} has a gain of 0, so some values that a published"
      " transcoder reads are lost; use the language model it was trained on."
    )
  return _rescale_input(sae, 1 / gain)


def _rescale_input(sae: Sae, factor: np.ndarray) -> Sae:
  """Rescales W_enc and W_skip for an input divided by `factor` [D_in]."""
  skip = None if sae.w_skip is None else factor[:, None] * sae.w_skip
  return sae.replace(w_enc=factor[:, None] * sae.w_enc, w_skip=skip)


def write(sae: Sae, path) -> None:
  """Writes one autoencoder to a new `.npz` file, atomically.

  Args:
    sae: an autoencoder of raw activations, as `sae.fold` returns; a transcoder
      as `to_published` returns it.
    path: the file, `params.npz` by convention; its folders are made.

  Raises:
    UserError: the file exists or cannot be written, or the autoencoder is a
      stack, is not finite, or has parts that the format cannot hold.
  """
  path = pathlib.Path(path)
  _check_kind(sae)
  arrays = {
    name: np.asarray(getattr(sae, field), np.float32)
    for field, name in _ARRAYS.items()
  }
  _check_shapes({name: x.shape for name, x in arrays.items()}, path)
  _check_values(arrays, path)
  if path.exists():
    raise UserError(f"{path} exists; remove it or choose another path.")
  try:
    with whole_file(path) as partial, open(partial, "wb") as file:
      np.savez(file, **arrays)
  except OSError as error:
    raise UserError(
      f"{path} cannot be written ({error.strerror}); choose a place that has"
      " room and that you may write to."
    ) from error


def _check_kind(sae: Sae) -> None:
  """Raises UserError for an autoencoder that the format cannot hold."""
  if sae.k is not None:
    raise UserError(
      f"A TopK autoencoder (k={sae.k}) cannot be written in Gemma Scope's"
      " JumpReLU format, where each latent is active or not by itself."
    )
  if sae.w_skip is not None:
    raise UserError(
      "A transcoder with an affine skip cannot be written in Gemma Scope's"
      f" format; {FILE} has no place for W_skip."
    )


def read(path) -> Sae:
  """Reads a `params.npz`; lower-case `w_enc` and `w_dec` are accepted too.

  A published transcoder reads before a norm's gain; see `from_published`.

  The file is not trusted: pickle is not allowed, and memory is allocated only
  after an array's size, type and shape are checked.

  Raises:
    UserError: an array is missing or wrong; names the file and the array.
  """
  path = pathlib.Path(path)
  try:
    with _open(path) as archive:
      arrays = _read(archive, path)
  except OSError as error:
    raise UserError(
      f"{path} cannot be read ({error.strerror}); give a {FILE}."
    ) from error
  _check_values(arrays, path)
  return Sae(**{k: jnp.asarray(arrays[v]) for k, v in _ARRAYS.items()})


def _open(path) -> zipfile.ZipFile:
  try:
    return zipfile.ZipFile(path)
  except OSError:
    raise
  # Malformed bytes make the parsers raise almost any exception.
  except Exception as error:
    raise UserError(
      f"{path} is not an .npz file, or only part of one ({error}); get it"
      " again."
    ) from error


def _read(archive, path) -> dict[str, np.ndarray]:
  members = _members(archive, path)
  shapes = {
    name: _shape(archive, member, f"{name} in {path}")
    for name, member in members.items()
  }
  _check_shapes(shapes, path)
  return {
    name: _array(archive, member, f"{name} in {path}")
    for name, member in members.items()
  }


def _members(archive, path) -> dict[str, zipfile.ZipInfo]:
  """Maps array names to zip members; raises unless all five are there once."""
  members = {}
  for member in archive.infolist():
    name = member.filename.removesuffix(".npy")
    name = "W_" + name[2:] if name.startswith("w_") else name
    if name not in _ARRAYS.values() or name in members:
      raise UserError(
        f"{path} holds {member.filename!r} beside the arrays of Gemma Scope"
        f" ({', '.join(_ARRAYS.values())}); it is another format."
      )
    members[name] = member
  missing = [name for name in _ARRAYS.values() if name not in members]
  if missing:
    raise UserError(
      f"{path} lacks {', '.join(missing)}; Gemma Scope's files hold"
      f" {', '.join(_ARRAYS.values())}."
    )
  return members


def _shape(archive, member, what) -> tuple[int, ...]:
  """Reads the shape in an array's header, after checking the header."""
  shape, dtype, start = _header(archive, member, what)
  if dtype.kind != "f":
    raise UserError(
      f"{what} is of type {dtype}; Gemma Scope's arrays are float32."
    )
  promised = start + math.prod(shape) * dtype.itemsize
  if promised != member.file_size or not _can_hold(archive, member):
    raise _damaged(what, "its header promises a size that it does not have")
  return shape


def _header(archive, member, what):
  """Reads an array's shape, dtype and the offset of its values."""
  try:
    with archive.open(member) as file:
      version = np.lib.format.read_magic(file)
      if version != (1, 0):  # later ones are for records; headers may be huge
        raise ValueError(f"version {version} of the .npy format")
      shape, _, dtype = np.lib.format.read_array_header_1_0(file)
      return shape, dtype, file.tell()
  except Exception as error:  # as in _open
    raise _damaged(what, error) from error


def _can_hold(archive, member) -> bool:
  """Returns whether the compressed bytes can hold the promised size."""
  packed = min(member.compress_size, os.path.getsize(archive.filename))
  ratio = 1 if member.compress_type == zipfile.ZIP_STORED else _MAX_RATIO
  return member.file_size <= packed * ratio


def _array(archive, member, what) -> np.ndarray:
  try:
    with archive.open(member) as file:
      array = np.lib.format.read_array(file, allow_pickle=False)
  except (zipfile.BadZipFile, zlib.error, EOFError, ValueError) as error:
    raise _damaged(what, error) from error
  with np.errstate(over="ignore"):  # _check_values refuses infinity
    return array.astype(np.float32)


def _damaged(what, error):
  reason = str(error) or type(error).__name__
  return UserError(f"{what} is damaged ({reason}); get it again.")


def _check_shapes(shapes, path):
  """Checks that all shapes agree with W_enc [D_in, F] and W_dec [F, D]."""
  for name, axes in (
    ("W_enc", "(site width, number of latents)"),
    ("W_dec", "(number of latents, site width)"),
  ):
    if len(shapes[name]) != 2 or min(shapes[name]) < 1:
      raise UserError(
        f"{name} in {path} has shape {shapes[name]}; one autoencoder's is"
        f" {axes}."
      )
  (_, f), (_, d) = w_enc, w_dec = shapes["W_enc"], shapes["W_dec"]
  wanted = {"W_dec": (f, d), "b_enc": (f,), "b_dec": (d,), "threshold": (f,)}
  for name, shape in wanted.items():
    if shapes[name] != shape:
      raise UserError(
        f"{name} in {path} has shape {shapes[name]}; W_enc of shape {w_enc} and"
        f" W_dec of shape {w_dec} need {shape}."
      )


def _check_values(arrays, path):
  for name, array in arrays.items():
    if not np.isfinite(array).all():
      raise UserError(
        f"{name} in {path} has values that are not finite; the autoencoder"
        " is broken, use another."
      )
  if (arrays["threshold"] < 0).any():
    raise UserError(
      f"threshold in {path} has negative values; JumpReLU's are 0 or more."
    )
