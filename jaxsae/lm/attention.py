"""The arithmetic of attention: rotary positions, masks, weighted sums.

Shapes: B batch, T queries, S keys, N query heads, K key heads, G = N/K query
heads that share one key, H head_dim.
"""

import jax
import jax.numpy as jnp
from flax import struct

MASKED = -2.3819763e38  # the official value; softmax turns it into exactly 0

# The plain path takes queries in blocks and slices out, for each block, the
# keys that it can see. A block is unrolled code, so there are few.
SMALLEST_BLOCK = 128
MOST_BLOCKS = 8


class Packing(struct.PyTreeNode):
  """The segment and position of every token in packed rows, int [B, T] each.

  Attributes:
    segments: a token attends only within its own segment.
    positions: counted from 0 in each segment, whose tokens are adjacent and
      in order.
  """

  segments: jax.Array
  positions: jax.Array

  def __getitem__(self, times) -> "Packing":
    return Packing(self.segments[:, times], self.positions[:, times])


def apply_rope(
  x: jax.Array, positions: jax.Array, base: float, scale: float = 1.0
) -> jax.Array:
  """Rotates halves of each head by its position over `scale`; [B, T, N, H]."""
  half = x.shape[-1] // 2
  timescale = base ** (jnp.arange(half, dtype=jnp.float32) / half)
  angle = positions[..., None, None] / timescale[None, None, None, :] / scale
  sin, cos = jnp.sin(angle), jnp.cos(angle)
  first, second = jnp.split(x, 2, axis=-1)
  rotated = [first * cos - second * sin, second * cos + first * sin]
  return jnp.concatenate(rotated, axis=-1).astype(x.dtype)


def attention_mask(
  queries: Packing, keys: Packing, window: int | None = None
) -> jax.Array:
  """Returns which keys each query may attend to: bool [B, T, S].

  Positions count up within a segment, so `key position ≤ query position` in
  the same segment is causality.
  """
  query, key = queries.positions[:, :, None], keys.positions[:, None, :]
  mask = queries.segments[:, :, None] == keys.segments[:, None, :]
  mask &= key <= query
  if window is not None:
    mask &= key > query - window
  return mask


def attend(
  q: jax.Array,
  k: jax.Array,
  v: jax.Array,
  queries: Packing,
  keys: Packing,
  window: int | None,
  softcap: float | None,
) -> jax.Array:
  """Masked, soft-capped, grouped attention.

  Args:
    q: [B, T, N, H], scaled.
    k: [B, S, K, H].
    v: [B, S, K, H].
    queries: segments and positions of the T tokens.
    keys: segments and positions of the S tokens, which are the same tokens
      if S = T.
    window: number of tokens that a query sees, itself included; None: all.
    softcap: squashes the logits into (-softcap, softcap); None: no cap.

  Returns:
    [B, T, N, H]
  """
  parts = []
  for at, seen in _blocks(q.shape[1], k.shape[1], window):
    mask = attention_mask(queries[at], keys[seen], window)
    parts.append(_attend(q[:, at], k[:, seen], v[:, seen], mask, softcap))
  return jnp.concatenate(parts, axis=1)


def _blocks(queries: int, keys: int, window: int | None):
  """Slices of the queries, each with the slice of the keys it can see."""
  if queries != keys:  # keys from a cache are not the queries' tokens
    return [(slice(0, queries), slice(0, keys))]
  size = max(SMALLEST_BLOCK, -(-queries // MOST_BLOCKS))
  starts = range(0, queries, size)
  ends = [min(start + size, queries) for start in starts]
  back = keys if window is None else window - 1
  return [
    (slice(start, end), slice(max(0, start - back), end))
    for start, end in zip(starts, ends, strict=True)
  ]


def _attend(q, k, v, mask, softcap):
  batch, time, heads, head_dim = q.shape
  q = q.reshape(batch, time, k.shape[2], -1, head_dim)
  logits = jnp.einsum(
    "BTKGH,BSKH->BKGTS", q, k, preferred_element_type=jnp.float32
  )
  logits = soft_cap(logits, softcap)
  logits = jnp.where(mask[:, None, None], logits, MASKED)
  probs = jax.nn.softmax(logits, axis=-1).astype(v.dtype)
  out = jnp.einsum("BKGTS,BSKH->BTKGH", probs, v)
  return out.reshape(batch, time, heads, head_dim)


def soft_cap(x: jax.Array, cap: float | None) -> jax.Array:
  """Squashes x smoothly into (-cap, cap); None leaves it alone."""
  return x if cap is None else jnp.tanh(x / cap) * cap
