"""The texts that excite each latent most, kept while text streams by.

Letters in shapes: B rows, T time, F latents, K contexts of a latent, W tokens
of a context.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxsae.explore.report import Contexts


@struct.dataclass
class Best:
  """The K strongest contexts of F latents so far, strongest first.

  Attributes:
    values: [F, K], the activation at the peak, 0 where there is no context.
    tokens: int32 [F, K, W], -1 where there is none.
    activations: [F, K, W].
    position: int32 [F, K], of the peak in its segment.
    document: int32 [F, K], of the peak, -1 where there is no context.
  """

  values: jax.Array
  tokens: jax.Array
  activations: jax.Array
  position: jax.Array
  document: jax.Array


def no_contexts(latents: int, contexts: int, window: int) -> Best:
  """Before the first row."""
  shape = (latents, contexts)
  return Best(
    values=jnp.zeros(shape, jnp.float32),
    tokens=jnp.full((*shape, window), -1, jnp.int32),
    activations=jnp.zeros((*shape, window), jnp.float32),
    position=jnp.zeros(shape, jnp.int32),
    document=jnp.full(shape, -1, jnp.int32),
  )


def add_contexts(
  best: Best, latents: jax.Array, batch: Mapping[str, jax.Array]
) -> Best:
  """Lets the rows of a batch compete with the best so far.

  A row enters at most once, by its strongest token, so that the contexts of a
  latent differ. Of equals the earlier stays, however rows are batched.

  Args:
    latents: activations [B, T, F], 0 where a token may not be a peak.
    batch: `tokens`, `segments`, `positions` and `document`, int [B, T].
  """
  peaks, times = _peaks(latents)  # [F, B]
  contexts = best.values.shape[1]
  # top_k puts the first of equals first.
  values, chosen = jax.lax.top_k(
    jnp.concatenate([best.values, peaks], axis=1), contexts
  )
  rows = jnp.maximum(chosen - contexts, 0)
  new = _cut(latents, batch, rows, times, best.tokens.shape[-1])
  kept = jnp.minimum(chosen, contexts - 1)

  def pick(old, new):
    extra = (1,) * (old.ndim - 2)
    old = jnp.take_along_axis(old, kept.reshape(*kept.shape, *extra), axis=1)
    return jnp.where(
      (chosen < contexts).reshape(*chosen.shape, *extra), old, new
    )

  return jax.tree.map(pick, best, Best(values=values, **new))


def to_report(best: Best) -> Contexts:
  """The contexts as the report takes them."""
  best = jax.tree.map(np.asarray, best)
  window = best.tokens.shape[-1]
  return Contexts(
    tokens=best.tokens,
    activations=best.activations,
    peak=np.full(best.values.shape, _before(window), np.int32),
    position=best.position,
    document=best.document,
    count=np.sum(best.values > 0, axis=1),
  )


def _peaks(latents):
  """Each row's largest activation, and where it first is: both [F, B]."""
  peaks = jnp.max(latents, axis=1)
  time = jax.lax.broadcasted_iota(jnp.int32, latents.shape, 1)
  # What argmax gives, which takes three times as long on CPU.
  at_peak = jnp.where(latents == peaks[:, None], time, latents.shape[1])
  return peaks.T, jnp.min(at_peak, axis=1).T


def _cut(latents, batch, rows, times, window):
  """The windows around the peaks of some rows [F, K] of each latent."""
  peak = jnp.take_along_axis(times, rows, axis=1)
  span = peak[..., None] + jnp.arange(window)[None, None] - _before(window)
  inside = (span >= 0) & (span < latents.shape[1])
  rows, peak = rows[..., None], peak[..., None]
  span = jnp.clip(span, 0, latents.shape[1] - 1)
  segments = batch["segments"]
  inside &= segments[rows, span] == segments[rows, peak]
  latent = jnp.arange(latents.shape[-1])[:, None, None]
  return {
    "tokens": jnp.where(inside, batch["tokens"][rows, span], -1),
    "activations": jnp.where(inside, latents[rows, span, latent], 0),
    "position": batch["positions"][rows, peak][..., 0],
    "document": batch["document"][rows, peak][..., 0],
  }


def _before(window: int) -> int:
  """Tokens before the peak: most, as the model has read no others there."""
  return window * 2 // 3
