"""Choosing the next token from its logits. Shapes: B rows, V vocabulary."""

import math
import numbers
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxsae.brief import brief
from jaxsae.errors import UserError

NONE = -1  # no token, because the logits are not finite
_COLDEST = 1e-6  # below it, float32 cannot tell sampling from greedy


class Sampling(struct.PyTreeNode):
  """How to draw tokens; values may change without compiling anything anew.

  Attributes:
    seed: uint32 [].
    temperature: float32 [], divides the logits.
    top_k: int32 [], draw from this many of the likeliest tokens; None: all.
    top_p: float32 [], draw from the fewest of the likeliest tokens that have
      this much of the probability (nucleus sampling, Holtzman et al., arXiv
      1904.09751), which is counted after top_k; None: from all.
  """

  seed: np.uint32
  temperature: np.float32
  top_k: np.int32 | None = None
  top_p: np.float32 | None = None


def make_sampling(
  temperature: float, top_k: int | None, top_p: float | None, seed: int
) -> Sampling | None:
  """Checks the settings; returns None at temperature 0, which is greedy."""
  _check(temperature, top_k, top_p, seed)
  if temperature == 0:
    return None
  return Sampling(
    seed=np.uint32(seed),
    temperature=np.float32(temperature),
    top_k=None if top_k is None else np.int32(min(top_k, 2**31 - 1)),
    top_p=None if top_p is None else np.float32(top_p),
  )


def _check(temperature, top_k, top_p, seed):
  for name, value in (
    ("temperature", temperature),
    ("top_p", 1 if top_p is None else top_p),
  ):
    if not _is_real(value):
      raise UserError(f"{name}={brief(value)} is not a number; give one.")
  if temperature != 0 and not _COLDEST <= temperature < math.inf:
    raise UserError(
      f"temperature={temperature} is not possible; use 0 for the most likely"
      f" token, or a number from {_COLDEST} up."
    )
  if top_k is not None and not (is_whole(top_k) and top_k >= 1):
    raise UserError(f"top_k={top_k} is not a number of tokens; use 1 or more.")
  if top_p is not None and not 0 < top_p <= 1:
    raise UserError(
      f"top_p={top_p} is not a share of the probability; use a number above 0,"
      " at most 1."
    )
  if not (is_whole(seed) and 0 <= seed < 2**32):
    raise UserError(f"seed={seed} is not a whole number from 0 to 2**32 - 1.")


def is_whole(x: Any) -> bool:
  """Returns whether this is a whole number; True and False are not."""
  return isinstance(x, numbers.Integral) and not isinstance(x, bool)


def _is_real(x) -> bool:
  return isinstance(x, numbers.Real) and not isinstance(x, bool)


def choose(
  logits: jax.Array, sampling: Sampling | None, step: jax.Array
) -> jax.Array:
  """Chooses the next token of each row: logits [B, V] → int32 [B].

  A row's draw depends on the seed, `step` and the row's index, and not on the
  other rows. A row whose logits are not finite gets `NONE`.
  """
  finite = jnp.isfinite(logits).all(axis=-1)
  return jnp.where(finite, _choose(logits, sampling, step), NONE)


def _choose(logits, sampling, step):
  if sampling is None:
    return jnp.argmax(logits, axis=-1).astype(jnp.int32)
  key = jax.random.fold_in(jax.random.key(sampling.seed), step)
  rows = jnp.arange(len(logits))
  keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, rows)
  return jax.vmap(_draw, in_axes=(0, None, 0))(logits, sampling, keys)


def _draw(logits, sampling, key):
  """Draws one token int32 [] from logits [V]."""
  # Relative to the largest logit, no temperature overflows.
  logits = (logits - logits.max()) / sampling.temperature
  if sampling.top_k is None and sampling.top_p is None:
    return jax.random.categorical(key, logits).astype(jnp.int32)
  # The sort is stable, so equal logits keep their order, as in argmax.
  ids = jnp.arange(len(logits), dtype=jnp.int32)
  falling, ids = jax.lax.sort((-logits, ids), num_keys=1)
  return ids[jax.random.categorical(key, _truncate(-falling, sampling))]


def _truncate(logits, sampling):
  """Sets descending logits [V] to -inf where top_k or top_p excludes them."""
  if sampling.top_k is not None:
    rank = jnp.arange(len(logits))
    logits = jnp.where(rank < sampling.top_k, logits, -jnp.inf)
  if sampling.top_p is not None:
    probs = jax.nn.softmax(logits)
    before = jnp.cumsum(probs) - probs  # 0 for the likeliest, which stays
    logits = jnp.where(before < sampling.top_p, logits, -jnp.inf)
  return logits
