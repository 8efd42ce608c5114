"""Next-token cross-entropy, with documents kept apart.

Shapes: B batch, T time, D embed_dim, V vocabulary, C time of one chunk.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxsae.lm.lm import Lm
from jaxsae.lm.sharding import rows_on_device

# Tokens of one device whose logits are in memory at a time, twice; with a
# vocabulary of 256,000, half a gigabyte.
_CHUNK = 256


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


def loss_and_kl(
  lm: Lm,
  stream: jax.Array,
  clean: jax.Array,
  tokens: jax.Array,
  segments: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Returns `next_token_loss` of a residual stream, and its KL from another.

  The logits [B, T, V] never exist: those of a few tokens of every row at a time
  are made and reduced. On a mesh, rows stay split over `data`, and the
  vocabulary over `model`. The divergence is KL(p ‖ q) = Σ p (log p - log q) in
  nats, with p the next token's distribution by the clean stream, and q by the
  other.

  Args:
    lm: the language model.
    stream: the residual stream [B, T, D] after the last block.
    clean: that of the unchanged language model.
    tokens: int [B, T].
    segments: int [B, T]; 0 is padding.

  Returns:
    losses and divergences, [B, T-1] each, 0 where not counted; and the mask
    [B, T-1] of positions whose next token belongs to the same segment.
  """

  def of_chunk(lm, stream, clean, following):
    logits = lm.unembed(stream)
    return jnp.stack(
      [
        _cross_entropy(logits, following),
        _kl(lm.unembed(clean), logits),
      ],
      axis=-1,
    )

  following = jnp.pad(tokens[:, 1:], ((0, 0), (0, 1)))
  both = _by_chunk(lm, of_chunk, stream, clean, following)
  mask = _is_counted(segments)
  loss, kl = (jnp.where(mask, both[:, :-1, i], 0.0) for i in (0, 1))
  return loss, kl, mask


def _by_chunk(
  lm: Lm, of_chunk: Callable[..., jax.Array], *arrays: jax.Array
) -> jax.Array:
  """Calls `of_chunk(lm, *arrays [B, C, …])` for a few tokens of every row.

  Args:
    lm: the language model; its embedding is gathered once.
    of_chunk: returns an array [B, C, …].
    *arrays: [B, T, …].

  Returns:
    What it returned, joined: [B, T, …].
  """
  rows, time = arrays[0].shape[:2]
  size = min(time, max(1, _CHUNK // rows_on_device(rows, lm.mesh)))
  fill = lambda x: ((0, 0), (0, -time % size)) + ((0, 0),) * (x.ndim - 2)
  filled = [jnp.pad(x, fill(x)) for x in arrays]
  lm = lm.with_gathered_embedding()  # once, and not for every chunk

  def at(start):
    cut = lambda x: jax.lax.dynamic_slice_in_dim(x, start, size, axis=1)
    return of_chunk(lm, *map(cut, filled))

  made = jax.lax.map(at, jnp.arange(0, time, size))  # [chunks, B, C, …]
  made = jnp.swapaxes(made, 0, 1)
  return made.reshape(rows, -1, *made.shape[3:])[:, :time]


def _kl(clean: jax.Array, logits: jax.Array) -> jax.Array:
  """Returns KL(p ‖ q) of logits [..., V] of p and q."""
  log_p = jax.nn.log_softmax(clean.astype(jnp.float32))
  log_q = jax.nn.log_softmax(logits.astype(jnp.float32))
  p, q = jnp.exp(log_p), jnp.exp(log_q)
  # Σ (q - p) is 0 but for the rounding that both logarithms' sums share, and
  # so takes it from a divergence that may be as small.
  return jnp.sum(p * (log_p - log_q) + (q - p), axis=-1)


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
