"""Next-token cross-entropy, with documents kept apart.

Shapes: B batch, T time, D embed_dim, V vocabulary, C time of one chunk.
"""

import jax
import jax.numpy as jnp

from jaxsae.lm.lm import Lm
from jaxsae.lm.sharding import rows_on_device

# Tokens of one device whose logits are in memory at a time; with a vocabulary
# of 256,000, half a gigabyte.
_CHUNK = 512


def next_token_loss(
  logits: jax.Array, tokens: jax.Array, segments: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Returns the cross-entropy of each token given its segment so far.

  Args:
    logits: [B, T, V].
    tokens: int [B, T].
    segments: int [B, T]; 0 is padding.

  Returns:
    losses [B, T-1] in nats, 0 where not counted, and the mask [B, T-1] of
    positions whose next token belongs to the same segment.
  """
  mask = _is_counted(segments)
  losses = _cross_entropy(logits[:, :-1], tokens[:, 1:])
  return jnp.where(mask, losses, 0.0), mask


def loss_of_stream(
  lm: Lm, stream: jax.Array, tokens: jax.Array, segments: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Returns `next_token_loss` of a residual stream, without its logits.

  The logits [B, T, V] never exist: those of a few tokens of every row at a time
  are made and reduced. On a mesh, rows stay split over `data`, and the
  vocabulary over `model`.

  Args:
    lm: the language model.
    stream: the residual stream [B, T, D] after the last block.
    tokens: int [B, T].
    segments: int [B, T]; 0 is padding.
  """
  rows, time = tokens.shape
  size = min(time, max(1, _CHUNK // rows_on_device(rows, lm.mesh)))
  more = -time % size
  following = jnp.pad(tokens[:, 1:], ((0, 0), (0, 1 + more)))
  stream = jnp.pad(stream, ((0, 0), (0, more), (0, 0)))
  lm = lm.with_gathered_embedding()  # once, and not for every chunk

  def of_chunk(start):
    at = lambda x: jax.lax.dynamic_slice_in_dim(x, start, size, axis=1)
    return _cross_entropy(lm.unembed(at(stream)), at(following))

  starts = jnp.arange(0, time + more, size)
  losses = jax.lax.map(of_chunk, starts)  # [chunks, B, C]
  losses = jnp.swapaxes(losses, 0, 1).reshape(rows, -1)[:, : time - 1]
  mask = _is_counted(segments)
  return jnp.where(mask, losses, 0.0), mask


def _is_counted(segments: jax.Array) -> jax.Array:
  """Returns where the next token belongs to the same segment, [B, T-1]."""
  return (segments[:, 1:] == segments[:, :-1]) & (segments[:, 1:] > 0)


def _cross_entropy(logits: jax.Array, following: jax.Array) -> jax.Array:
  """Returns −log softmax(logits) at the tokens that follow, [B, T]."""
  logits = logits.astype(jnp.float32)
  logits -= jax.lax.stop_gradient(jnp.max(logits, axis=-1, keepdims=True))
  ids = jax.lax.broadcasted_iota(jnp.int32, logits.shape, logits.ndim - 1)
  # A lookup, as a sum with one term that is not 0: where the vocabulary is
  # split over devices, each sums its own part and no logits are sent.
  is_next = ids == following[..., None]
  chosen = jnp.sum(jnp.where(is_next, logits, 0.0), axis=-1)
  return jnp.log(jnp.sum(jnp.exp(logits), axis=-1)) - chosen
