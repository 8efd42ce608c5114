"""The latents whose directions are most alike."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

_AT_ONCE = 2**24  # cosines held at a time


def nearest(directions: jax.Array, count: int) -> tuple[np.ndarray, np.ndarray]:
  """The nearest other latents of each latent, by cosine, nearest first.

  Args:
    directions: [F, D], the rows of the decoder; a row of zeros has cosine 0.
    count: how many; F - 1 if there are no more.

  Returns:
    latents int32 [F, count] and cosines [F, count].
  """
  count = min(count, len(directions) - 1)
  norms = jnp.linalg.norm(directions, axis=1, keepdims=True)
  directions = directions / jnp.where(norms > 0, norms, 1)
  rows = max(1, _AT_ONCE // len(directions))
  blocks = [
    jax.device_get(_nearest(directions[at : at + rows], at, directions, count))
    for at in range(0, len(directions), rows)
  ]
  cosines, latents = zip(*blocks, strict=True)
  return np.concatenate(latents), np.concatenate(cosines)


@functools.partial(jax.jit, static_argnames="count")
def _nearest(block, first, directions, count):
  """Cosines and latents, for a block of rows that starts at row `first`."""
  # In bfloat16, a TPU's default, the nearest would trade places.
  cosines = jnp.matmul(block, directions.T, precision="highest")
  own = first + jnp.arange(len(block))
  cosines = cosines.at[jnp.arange(len(block)), own].set(-jnp.inf)
  return jax.lax.top_k(cosines, count)
