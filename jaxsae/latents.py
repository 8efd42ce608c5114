"""Latents by number, checked: JAX clamps indices that are out of range."""

import operator
from typing import Any

import jax
import numpy as np
from jax.core import Tracer

from jaxsae.brief import brief
from jaxsae.errors import UserError


def checked(latent: Any, width: int, who: str) -> Any:
  """Returns the number of a latent, or an array of several, after a check.

  What cannot be read now, as inside `jit`, is returned as it is, and so is
  what stands for a number in trees of axes or shardings.

  Args:
    latent: a whole number, a list of them, or an array.
    width: the number of latents, F.
    who: what asks for the latent, for messages.

  Raises:
    UserError: it is not a whole number from 0 to F - 1.
  """
  if not _is_readable(latent):
    return latent
  given = [latent] if np.ndim(latent) == 0 else np.asarray(latent).ravel()
  for one in given:
    _check(one, width, who)
  return np.asarray(latent, np.int32)[()]


def _check(latent: Any, width: int, who: str) -> None:
  number = _whole(latent)
  if number is None:
    raise UserError(
      f"{who} cannot find latent {brief(latent)}, which is not a whole number;"
      f" the autoencoder has latents 0 to {width - 1}."
    )
  if not 0 <= number < width:
    raise UserError(
      f"{who} cannot find latent {number}; the autoencoder has latents 0 to"
      f" {width - 1}."
    )


def _whole(latent: Any) -> int | None:
  if isinstance(latent, bool | np.bool_):
    return None
  try:
    return operator.index(latent)
  except TypeError:
    return None


def _is_readable(latent: Any) -> bool:
  if isinstance(latent, Tracer):
    return False
  if isinstance(latent, jax.Array):
    return latent.is_fully_addressable
  if isinstance(latent, np.ndarray):
    return latent.dtype.kind != "V"  # float0, of gradients
  return isinstance(latent, list | tuple | str | float | int | np.generic)
