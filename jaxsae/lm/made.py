"""Checks of what edits return: a forgotten `return`, a number, NaN.

Shapes: B batch, T time, D site width.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxsae.brief import brief
from jaxsae.errors import UserError
from jaxsae.lm.sites import Site


def as_made(new: Any, who: str) -> Any:
  """Returns what an edit made, after checking that it is an array of reals.

  Args:
    new: what it returned.
    who: the edit, for messages.

  Raises:
    UserError: it is something else.
  """
  if new is None:
    raise UserError(
      f"{who} returned None; end its function with `return` and the activation."
    )
  if not isinstance(new, jax.Array | np.ndarray):
    raise UserError(
      f"{who} returned {brief(new)}, a {type(new).__name__}; return an array of"
      " the shape that it receives."
    )
  if not _is_real(new.dtype):
    raise UserError(
      f"{who} returned {new.dtype}{list(new.shape)}; return real numbers, such"
      " as float32."
    )
  return new


def as_shape(new: Any, shape: tuple[int, ...], who: str) -> Any:
  """Returns what an edit made, after checking its shape too."""
  if as_made(new, who).shape != shape:
    raise UserError(
      f"{who} returned shape {list(new.shape)} for an activation of shape"
      f" {list(shape)}; return the shape that it receives."
    )
  return new


def _is_real(dtype) -> bool:
  return jnp.issubdtype(dtype, np.floating) or jnp.issubdtype(dtype, np.integer)


@jax.jit
def breaks(x: jax.Array, new: jax.Array) -> jax.Array:
  """Returns bool []: a token was finite before an edit, and is not after it."""
  finite = lambda x: jnp.isfinite(x).all(axis=-1)
  return jnp.any(finite(x) & ~finite(new))


def refuse_broken(broken: Mapping[Site, Any]) -> None:
  """Raises UserError if an edit made values that are not finite.

  Args:
    broken: site → whether its edit did. Nothing can be read inside `jit`.
  """
  if any(isinstance(flag, Tracer) for flag in broken.values()):
    return
  for site in sorted(broken, key=lambda site: site.depth):
    if np.asarray(broken[site]):
      raise UserError(
        f"The edit at {site} made values that are not finite (NaN or infinity)"
        " of an activation that was; look for a division by zero, a logarithm,"
        " or a strength that is too large or itself not finite."
      )
