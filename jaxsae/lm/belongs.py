"""Checks that an autoencoder belongs where an edit puts it."""

import pathlib
import warnings
from typing import Any

from jaxsae.errors import UserError
from jaxsae.lm.config import PUBLISHED, GemmaConfig, gemma2_tiny
from jaxsae.lm.edits import Clamp, Splice, TapsEdit
from jaxsae.lm.lm import Lm
from jaxsae.lm.sites import Taps
from jaxsae.origin import Origin, origin_of

_SIZES = PUBLISHED | {"gemma2-tiny": gemma2_tiny}


def check_place(edit: Any, taps: Taps) -> None:
  """Raises UserError if the autoencoder in an edit is of other sites.

  Only an autoencoder that was loaded knows its sites.

  Args:
    edit: the edit, or the autoencoder itself.
    taps: the sites that it is to read and write.
  """
  origin = origin_of(_autoencoder(edit))
  if origin is None or origin.taps is None:
    return
  if Taps.parse(origin.taps) != taps:
    raise UserError(
      f"{origin.source} is an autoencoder of {origin.taps}, not of {taps}; put"
      f" it at {origin.taps}, or give sae.replace(), a copy that does not know"
      " its site."
    )
  if origin.before_gain:
    raise UserError(
      f"{origin.source} reads {taps.reads[0]} before the gain of its norm, as"
      " Gemma Scope publishes transcoders; give"
      f" jaxsae.formats.gemma_scope.from_published(sae, {str(taps)!r}, lm)."
    )


def check_model(edit: Any, taps: Taps, lm: Lm) -> None:
  """Raises UserError if the autoencoder in an edit cannot be of a model.

  Warns where its model has the same sizes and another name, as where one that
  was trained on pretrained weights is put into tuned ones.
  """
  sae = _autoencoder(edit)
  _check_widths(sae, taps, lm.config)
  origin = origin_of(sae)
  if origin is not None and origin.model:
    _check_name(origin, origin.model, lm)


def _autoencoder(edit: Any) -> Any:
  """Returns the autoencoder in an edit, or the edit itself."""
  inner = edit.edit if isinstance(edit, TapsEdit) else edit
  return inner.sae if isinstance(inner, Splice | Clamp) else inner


def _check_widths(sae: Any, taps: Taps, config: GemmaConfig) -> None:
  for name, axis, wanted in (
    ("w_enc", 0, taps.d_in(config)),
    ("w_dec", 1, taps.d(config)),
  ):
    shape = getattr(getattr(sae, name, None), "shape", None)
    if shape is not None and (len(shape) != 2 or shape[axis] != wanted):
      raise UserError(
        f"The autoencoder at {taps} has {name} of shape {list(shape)}, and the"
        f" model has {wanted} numbers there; give one autoencoder of this model"
        " and site."
      )


def _check_name(origin: Origin, trained_on: str, lm: Lm) -> None:
  name, here = (pathlib.PurePath(x).name for x in (trained_on, lm.name))
  known = next((k for k in _SIZES if name.startswith(k)), None)
  if known and not _same_sizes(_SIZES[known](), lm.config):
    raise UserError(
      f"{origin.source} is an autoencoder of {trained_on}, and"
      f" {lm.name or 'the language model'} has other sizes; load {trained_on},"
      " or give sae.replace(), a copy that does not know its model."
    )
  if here and name != here:
    warnings.warn(
      f"{origin.source} was trained on {trained_on}, and is put into {lm.name}",
      stacklevel=2,
    )


def _same_sizes(a: GemmaConfig, b: GemmaConfig) -> bool:
  return (a.num_layers, a.embed_dim) == (b.num_layers, b.embed_dim)
