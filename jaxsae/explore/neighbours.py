"""The latents whose decoder directions are most similar."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxsae import pod

_MAX_COSINES = 2**24  # in memory at a time


def nearest(directions: jax.Array, count: int) -> tuple[np.ndarray, np.ndarray]:
  """Finds the nearest other latents of each latent, by cosine, nearest first.

  Args:
    directions: [F, D], the rows of the decoder; a row of zeros has cosine 0.
    count: number of neighbours, at most F - 1.

  Returns:
    latents int32 [F, count] and cosines [F, count].
  """
  count = min(count, len(directions) - 1)
  norms = jnp.linalg.norm(directions, axis=1, keepdims=True)
  directions = directions / jnp.where(norms > 0, norms, 1)
  rows = max(1, _MAX_COSINES // len(directions))
  blocks = [
    pod.to_host(_nearest(directions[at : at + rows], at, directions, count))
    for at in range(0, len(directions), rows)
  ]
  cosines, latents = zip(*blocks, strict=True)
  return np.concatenate(latents), np.concatenate(cosines)


@functools.partial(jax.jit, static_argnames="count")
def _nearest(block, first, directions, count):
  """Nearest cosines and latents of the directions from latent `first` on."""
  # In bfloat16, a TPU's default, close neighbours would change order.
  cosines = jnp.matmul(block, directions.T, precision="highest")
  own = first + jnp.arange(len(block))
  cosines = cosines.at[jnp.arange(len(block)), own].set(-jnp.inf)
  return jax.lax.top_k(cosines, count)
