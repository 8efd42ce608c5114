"""Gemma 2 in Flax, with the official library's module and parameter names.

Because the names and shapes are the official ones, official checkpoints
restore without conversion. The blocks are a plain Python loop: taps are calls
in the model's own code, and a forward pass can stop after any block.

Shapes: B batch, T time, D embed_dim, N query heads, K key/value heads, G = N/K
query heads that share one key, H head_dim, F hidden_dim, V vocabulary.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxsae.lm.config import GemmaConfig

# `tap(where, layer, x) -> x` sees every site and may replace what flows on.
Tap = Callable[[str, int, jax.Array], jax.Array]

MASKED = -2.3819763e38  # the official value; softmax turns it into exactly 0


def pass_through(where: str, layer: int, x: jax.Array) -> jax.Array:
  """The tap that looks at nothing and changes nothing."""
  del where, layer
  return x


class Gemma(nn.Module):
  """The whole transformer."""

  config: GemmaConfig

  @nn.compact
  def __call__(
    self,
    tokens: jax.Array,
    segments: jax.Array,
    positions: jax.Array,
    tap: Tap = pass_through,
    num_blocks: int | None = None,
  ) -> jax.Array:
    """Runs the model.

    Args:
      tokens: int [B, T].
      segments: int [B, T]; a token attends only within its own segment.
      positions: int [B, T], counted from 0 in each segment.
      tap: called at each site.
      num_blocks: stop after so many blocks, without logits; None runs it all.

    Returns:
      Logits [B, T, V] in float32, or the residual stream [B, T, D] when
      `num_blocks` is given.
    """
    embedder = Embedder(self.config, name="embedder")
    x = embedder.encode(tokens)
    for layer in range(self._depth(num_blocks)):
      block = Block(self.config, layer, name=f"layer_{layer}")
      x = block(x, segments, positions, tap)
    if num_blocks is not None:
      return x
    x = RMSNorm(self.config, name="final_norm")(x)
    logits = embedder.decode(x)
    return soft_cap(logits, self.config.final_softcap)

  def _depth(self, num_blocks: int | None) -> int:
    return self.config.num_layers if num_blocks is None else num_blocks


class Embedder(nn.Module):
  """The embedding table, tied to the unembedding."""

  config: GemmaConfig

  def setup(self):
    shape = (self.config.vocab_size, self.config.embed_dim)
    self.table = self.param(
      "input_embedding", nn.initializers.normal(0.02), shape
    )

  def encode(self, tokens: jax.Array) -> jax.Array:
    """[B, T] → [B, T, D], scaled by √D in the table's own precision."""
    x = self.table[tokens]
    return x * jnp.sqrt(self.config.embed_dim).astype(x.dtype)

  def decode(self, x: jax.Array) -> jax.Array:
    """[B, T, D] → [B, T, V]; accumulated and returned in float32."""
    return jnp.einsum(
      "BTD,VD->BTV", x, self.table, preferred_element_type=jnp.float32
    )


class Block(nn.Module):
  """Attention, then a gated MLP, each between two norms."""

  config: GemmaConfig
  layer: int

  @nn.compact
  def __call__(self, x, segments, positions, tap):
    norm = lambda name: RMSNorm(self.config, name=name)
    attention = Attention(self.config, self.layer, name="attn")
    mlp = FeedForward(self.config, name="mlp")

    y = attention(norm("pre_attention_norm")(x), segments, positions, tap)
    x = x + norm("post_attention_norm")(y)
    y = norm("post_ffw_norm")(mlp(norm("pre_ffw_norm")(x)))
    x = x + tap("mlp", self.layer, y)
    return tap("resid", self.layer, x)


class Attention(nn.Module):
  """Grouped-query attention with RoPE, a soft cap and maybe a window."""

  config: GemmaConfig
  layer: int

  @nn.compact
  def __call__(self, x, segments, positions, tap):
    c = self.config
    q, k, v = self._project(x)
    q = apply_rope(q, positions, c.rope_base) * c.query_scale
    k = apply_rope(k, positions, c.rope_base)

    mask = attention_mask(
      segments, positions, c.window if c.is_local(self.layer) else None
    )
    heads = attend(q, k, v, mask, c.attn_softcap)  # [B, T, N, H]

    flat = tap("attn", self.layer, heads.reshape(*heads.shape[:2], -1))
    heads = flat.reshape(heads.shape)
    shape = (c.num_heads, c.head_dim, c.embed_dim)
    return Einsum(shape, name="attn_vec_einsum")("BTNH,NHD->BTD", heads)

  def _project(self, x):
    """x [B, T, D] → q [B, T, N, H], k and v [B, T, K, H]."""
    c = self.config
    if c.num_heads == c.num_kv_heads:  # the official layout fuses all three
      shape = (3, c.num_heads, c.embed_dim, c.head_dim)
      return Einsum(shape, name="qkv_einsum")("BTD,SNDH->SBTNH", x)
    q_shape = (c.num_heads, c.embed_dim, c.head_dim)
    kv_shape = (2, c.num_kv_heads, c.embed_dim, c.head_dim)
    q = Einsum(q_shape, name="q_einsum")("BTD,NDH->BTNH", x)
    k, v = Einsum(kv_shape, name="kv_einsum")("BTD,SKDH->SBTKH", x)
    return q, k, v


class FeedForward(nn.Module):
  """GeGLU: gelu(x W_gate) ⊙ (x W_up), then W_down."""

  config: GemmaConfig

  @nn.compact
  def __call__(self, x):
    c = self.config
    init = fan_in_normal(c.embed_dim)
    if c.transpose_gating:
      gating = self.param("gating_einsum", init, (2, c.hidden_dim, c.embed_dim))
      project = lambda w: jnp.einsum("BTD,FD->BTF", x, w)
    else:
      gating = self.param("gating_einsum", init, (2, c.embed_dim, c.hidden_dim))
      project = lambda w: jnp.einsum("BTD,DF->BTF", x, w)
    down = self.param(
      "linear", fan_in_normal(c.hidden_dim), (c.hidden_dim, c.embed_dim)
    )
    # Two products: one over a stacked axis takes twice as long on CPU.
    gate, up = project(gating[0]), project(gating[1])
    return jnp.einsum("BTF,FD->BTD", nn.gelu(gate) * up, down)


class RMSNorm(nn.Module):
  """x / rms(x) · (1 + scale)."""

  config: GemmaConfig

  @nn.compact
  def __call__(self, x):
    scale = self.param("scale", nn.initializers.zeros, (x.shape[-1],))
    mean_square = jnp.mean(jnp.square(x), axis=-1, keepdims=True)
    normed = x * jax.lax.rsqrt(mean_square + self.config.norm_eps)
    return normed * (1 + scale.reshape((1,) * (x.ndim - 1) + (-1,)))


class Einsum(nn.Module):
  """One weight `w`; the second to last axis is what it sums over."""

  shape: tuple[int, ...]

  @nn.compact
  def __call__(self, equation: str, x: jax.Array) -> jax.Array:
    w = self.param("w", fan_in_normal(self.shape[-2]), self.shape)
    return jnp.einsum(equation, x, w)


def fan_in_normal(fan_in: int):
  """Normal initialiser with variance 1 / fan_in."""
  return nn.initializers.normal(fan_in**-0.5)


def soft_cap(x: jax.Array, cap: float) -> jax.Array:
  """Squashes x smoothly into (-cap, cap)."""
  return jnp.tanh(x / cap) * cap


def apply_rope(x: jax.Array, positions: jax.Array, base: float) -> jax.Array:
  """Rotates halves of each head by its position; x [B, T, N, H]."""
  half = x.shape[-1] // 2
  timescale = base ** (jnp.arange(half, dtype=jnp.float32) / half)
  angle = positions[..., None, None] / timescale[None, None, None, :]
  sin, cos = jnp.sin(angle), jnp.cos(angle)
  first, second = jnp.split(x, 2, axis=-1)
  rotated = [first * cos - second * sin, second * cos + first * sin]
  return jnp.concatenate(rotated, axis=-1).astype(x.dtype)


def attention_mask(
  segments: jax.Array, positions: jax.Array, window: int | None
) -> jax.Array:
  """Who may attend to whom: bool [B, T, S] for queries T and keys S.

  Positions count up within a segment, so `key position ≤ query position` in
  the same segment is causality.
  """
  query, key = positions[:, :, None], positions[:, None, :]
  mask = (segments[:, :, None] == segments[:, None, :]) & (key <= query)
  if window is not None:
    mask &= key > query - window
  return mask


def attend(q, k, v, mask, softcap) -> jax.Array:
  """Soft-capped grouped attention; q [B,T,N,H], k and v [B,S,K,H]."""
  batch, time, heads, head_dim = q.shape
  q = q.reshape(batch, time, k.shape[2], -1, head_dim)
  logits = jnp.einsum("BTKGH,BSKH->BKGTS", q, k)
  logits = soft_cap(logits, softcap)
  logits = jnp.where(mask[:, None, None], logits, MASKED)
  probs = jax.nn.softmax(logits, axis=-1).astype(v.dtype)
  out = jnp.einsum("BKGTS,BSKH->BTKGH", probs, v)
  return out.reshape(batch, time, heads, head_dim)
