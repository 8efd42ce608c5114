"""The contexts in which each latent is most active, found in one pass.

Shapes: B rows, T time, F latents, K contexts of a latent, W tokens of a
context.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxsae.explore.report import Contexts
from jaxsae.token_batch import TokenBatch


class TopContexts(struct.PyTreeNode):
  """The K strongest contexts of each of F latents so far, strongest first.

  Attributes:
    values: [F, K], the activation at the peak, or 0 without a context.
    tokens: int32 [F, K, W], the token ids, or -1 where there is no token.
    activations: [F, K, W], the activation on each token.
    position: int32 [F, K], the position of the peak in its segment.
    document: int32 [F, K], the document of the peak, or -1 without a context.
  """

  values: jax.Array
  tokens: jax.Array
  activations: jax.Array
  position: jax.Array
  document: jax.Array


def no_contexts(latents: int, contexts: int, window: int) -> TopContexts:
  """Makes empty contexts, as they are before the first batch."""
  shape = (latents, contexts)
  return TopContexts(
    values=jnp.zeros(shape, jnp.float32),
    tokens=jnp.full((*shape, window), -1, jnp.int32),
    activations=jnp.zeros((*shape, window), jnp.float32),
    position=jnp.zeros(shape, jnp.int32),
    document=jnp.full(shape, -1, jnp.int32),
  )


def add_contexts(
  top: TopContexts, latents: jax.Array, batch: TokenBatch
) -> TopContexts:
  """Returns the strongest of the contexts so far and those of a new batch.

  A row gives at most one context per latent, around its strongest token, so
  the contexts of a latent come from different rows. Among equal peaks the
  earlier row is kept, however the rows are batched.

  Args:
    top: the contexts so far.
    latents: activations [B, T, F], 0 on tokens that may not be a peak.
    batch: the text, [B, T], with its documents.
  """
  peaks, times = _peaks(latents)  # [F, B]
  contexts = top.values.shape[1]
  # top_k puts the first of equal values first.
  values, chosen = jax.lax.top_k(
    jnp.concatenate([top.values, peaks], axis=1), contexts
  )
  rows = jnp.maximum(chosen - contexts, 0)
  new = _windows(latents, batch, rows, times, top.tokens.shape[-1])
  kept = jnp.minimum(chosen, contexts - 1)

  def pick(old, new):
    extra = (1,) * (old.ndim - 2)
    old = jnp.take_along_axis(old, kept.reshape(*kept.shape, *extra), axis=1)
    return jnp.where(
      (chosen < contexts).reshape(*chosen.shape, *extra), old, new
    )

  return jax.tree.map(pick, top, TopContexts(values=values, **new))


def to_report(top: TopContexts) -> Contexts:
  """Converts contexts to the form that a report holds."""
  window = top.tokens.shape[-1]
  return Contexts(
    tokens=np.asarray(top.tokens),
    activations=np.asarray(top.activations),
    peak=np.full(top.values.shape, _tokens_before_peak(window), np.int32),
    position=np.asarray(top.position),
    document=np.asarray(top.document),
    count=np.sum(np.asarray(top.values) > 0, axis=1),
  )


def _peaks(latents):
  """Each row's largest activation and its first position, both [F, B]."""
  peaks = jnp.max(latents, axis=1)
  time = jax.lax.broadcasted_iota(jnp.int32, latents.shape, 1)
  # The same as argmax, which takes three times as long on CPU.
  at_peak = jnp.where(latents == peaks[:, None], time, latents.shape[1])
  return peaks.T, jnp.min(at_peak, axis=1).T


def _windows(latents, batch, rows, times, window):
  """Extracts windows around the peaks of the given rows [F, K]."""
  peak = jnp.take_along_axis(times, rows, axis=1)
  span = (
    peak[..., None]
    + jnp.arange(window)[None, None]
    - _tokens_before_peak(window)
  )
  inside = (span >= 0) & (span < latents.shape[1])
  rows, peak = rows[..., None], peak[..., None]
  span = jnp.clip(span, 0, latents.shape[1] - 1)
  segments = batch.segments
  inside &= segments[rows, span] == segments[rows, peak]
  latent = jnp.arange(latents.shape[-1])[:, None, None]
  return {
    "tokens": jnp.where(inside, batch.tokens[rows, span], -1),
    "activations": jnp.where(inside, latents[rows, span, latent], 0),
    "position": batch.positions[rows, peak][..., 0],
    "document": batch.documents[rows, peak][..., 0],
  }


def _tokens_before_peak(window: int) -> int:
  """Number of tokens before the peak: most, as the model reads only these."""
  return window * 2 // 3
