"""Arguments of a forward pass, as people type them: lists, NumPy, mistakes.

Shapes: B rows, T tokens of a row.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsae.brief import brief
from jaxsae.errors import UserError

Ids = jax.Array | np.ndarray


def as_tokens(tokens: Any) -> Any:
  """Returns token ids as an array [B, T]; lists of rows are converted.

  Raises:
    UserError: they are not rows of whole numbers.
  """
  if isinstance(tokens, str) or _is_text(ids := _as_array(tokens, "Tokens")):
    raise UserError(
      f"Tokens {brief(tokens)} are text; give the ids of"
      " lm.tokenizer.encode([text]), with lm.tokenizer.bos before them."
    )
  if ids.ndim != 2 or not ids.size:
    raise UserError(
      f"Tokens {brief(tokens)} of shape {list(ids.shape)} are not rows of token"
      f" ids; give [rows, tokens], at least one of each{_one_row(ids)}."
    )
  _check_whole(ids, "Tokens")
  return ids


def as_packing(values: Any, tokens: Ids, name: str) -> Any:
  """Returns segments or positions as an array of the shape of the tokens.

  Raises:
    UserError: they are not whole numbers, one for each token.
  """
  found = _as_array(values, name)
  if found.shape != tokens.shape:
    raise UserError(
      f"{name} of shape {list(found.shape)} do not fit tokens of shape"
      f" {list(tokens.shape)}; give one number for each token."
    )
  _check_whole(found, name)
  return found


def _as_array(given: Any, name: str) -> Ids:
  if isinstance(given, jax.Array | np.ndarray):
    return given
  try:
    return np.asarray(given)
  except (ValueError, TypeError, OverflowError) as error:
    raise UserError(
      f"{name} {brief(given)} are not an array, because rows differ in length"
      " or hold something else than numbers; give rows of one length, and mark"
      " padding with segments of 0."
    ) from error


def _check_whole(x: Ids, name: str) -> None:
  if not jnp.issubdtype(x.dtype, np.integer):
    raise UserError(
      f"{name} of type {x.dtype} and shape {list(x.shape)} are not whole"
      " numbers; give integers, such as int32."
    )


def _is_text(x: Ids) -> bool:
  return isinstance(x, np.ndarray) and x.dtype.kind in "SU"


def _one_row(ids: Ids) -> str:
  return ", and one row as tokens[None]" if ids.ndim == 1 and ids.size else ""
