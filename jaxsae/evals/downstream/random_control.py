"""An autoencoder of random directions that fires as often as a trained one.

What a probe finds in it needs no training: random projections of activations,
cut off at a threshold, already tell many classes apart. On probing, such
autoencoders come close to trained ones (arXiv 2602.14111), so a figure means
something only beside its control.

Shapes: n tokens, D width of what is read, F latents, C latents of one chunk.
"""

import jax
import jax.numpy as jnp
import numpy as np

from jaxsae.sae import Sae

_CHUNK = 1024  # latents whose pre-activations are in memory at a time
_LEAST = 1e-6  # a threshold is above 0


def random_like(sae: Sae, x: np.ndarray, seed: int = 0) -> Sae:
  """Makes the control of an autoencoder.

  Its latents read in random directions, and each is active on the same share of
  tokens, which is that of the autoencoder's own latents on average. So both
  have the same width and the same L0; densities differ among latents of the
  autoencoder, and not among those of the control.

  Args:
    sae: an autoencoder of raw activations.
    x: activations [n, D] of the sites that it reads, to set thresholds on.
    seed: decides the directions.
  """
  rng = np.random.default_rng(seed)
  size = (x.shape[1], sae.width)
  directions = rng.standard_normal(size, np.float32)
  directions /= np.linalg.norm(directions, axis=0)
  mean = x.mean(axis=0)
  firing = round(float(_density(sae, jnp.asarray(x))) * len(x))
  starts = range(0, sae.width, _CHUNK)
  chunks = (directions[:, at : at + _CHUNK] for at in starts)
  cuts = [_exceeded(chunk, x - mean, firing) for chunk in chunks]
  return Sae(
    w_enc=jnp.asarray(directions),
    b_enc=jnp.asarray(-(mean @ directions)),
    w_dec=jnp.asarray(directions.T),
    b_dec=jnp.asarray(mean),
    threshold=jnp.maximum(jnp.concatenate(cuts), _LEAST),
  )


@jax.jit
def _density(sae: Sae, x: jax.Array) -> jax.Array:
  """Returns the share of latents that are active, over tokens x [n, D]."""
  one = lambda row: jnp.mean(sae.encode(row[None]) > 0, dtype=jnp.float32)
  return jnp.mean(jax.lax.map(one, x, batch_size=256))


def _exceeded(chunk: np.ndarray, x: np.ndarray, times: int) -> np.ndarray:
  """Returns what x @ chunk [D, C] exceeds on so many tokens, [C]."""
  pre = np.asarray(jnp.matmul(x, chunk, precision="highest"))
  at = max(len(pre) - 1 - times, 0)
  return np.partition(pre, at, axis=0)[at]
