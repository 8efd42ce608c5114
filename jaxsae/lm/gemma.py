"""Gemma 2 and 3 in Flax, with the official library's names.

Because modules and parameters have the official names and shapes, official
checkpoints restore without conversion. The blocks are a plain Python loop:
taps are calls in the model's own code, and a forward pass can stop after any
block.

Shapes: B batch, T time, D embed_dim, N query heads, K key/value heads,
H head_dim, F hidden_dim, V vocabulary, S columns of the cache.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct
from jax.sharding import Mesh
from jax.typing import ArrayLike

from jaxsae.lm import splash
from jaxsae.lm.attention import Packing, apply_rope, attend, soft_cap
from jaxsae.lm.config import GemmaConfig
from jaxsae.lm.sharding import keep_rows_over_data

# `tap(where, layer, x) -> x` is called at every site; its result replaces x.
Tap = Callable[[str, int, jax.Array], jax.Array]


class CacheColumns(struct.PyTreeNode):
  """Columns of the cache of keys and values.

  Attributes:
    packing: segments and positions of all S columns, [B, S], those of this
      call included.
    start: int [], column of the first of this call's T tokens.
  """

  packing: Packing
  start: ArrayLike


def pass_through(where: str, layer: int, x: jax.Array) -> jax.Array:
  """The tap that changes nothing."""
  del where, layer
  return x


class Gemma(nn.Module):
  """The whole transformer."""

  config: GemmaConfig
  mesh: Mesh | None = None  # over which rows, heads and weights are split

  def setup(self) -> None:
    layers = range(self.config.num_layers)
    self.embedder = Embedder(self.config)
    self.layer = [Block(self.config, i, self.mesh) for i in layers]
    self.final_norm = RMSNorm(self.config)

  def __call__(
    self, tokens: jax.Array, packing: Packing, **options: Any
  ) -> jax.Array:
    """Returns logits [B, T, V] in float32; see `stream` for the arguments."""
    return self.unembed(self.stream(tokens, packing, **options))

  def stream(
    self,
    tokens: jax.Array,
    packing: Packing,
    tap: Tap = pass_through,
    num_blocks: int | None = None,
    columns: CacheColumns | None = None,
  ) -> jax.Array:
    """Returns the residual stream [B, T, D] after the last block that runs.

    Args:
      tokens: int [B, T].
      packing: the tokens' segments and positions.
      tap: called at each site.
      num_blocks: number of blocks to run; None: all.
      columns: attend to the Flax collection "cache" as well, and write to it;
        None: the tokens attend only to each other.
    """
    x = keep_rows_over_data(self.embedder.encode(tokens), self.mesh)
    for block in self.layer[:num_blocks]:
      x = keep_rows_over_data(block(x, packing, tap, columns), self.mesh)
    return x

  def unembed(self, x: jax.Array) -> jax.Array:
    """Maps the residual stream [B, T, D] to float32 logits [B, T, V]."""
    logits = self.embedder.decode(self.final_norm(x))
    return soft_cap(logits, self.config.final_softcap)


def init_params(config: GemmaConfig, key: jax.Array) -> dict:
  """Makes randomly initialised float32 parameters."""
  one = jnp.zeros((1, 1), jnp.int32)
  return dict(Gemma(config).init(key, one, Packing(one, one))["params"])


class Embedder(nn.Module):
  """The embedding table, tied to the unembedding."""

  config: GemmaConfig

  def setup(self) -> None:
    shape = (self.config.vocab_size, self.config.embed_dim)
    self.table = self.param(
      "input_embedding", nn.initializers.normal(0.02), shape
    )

  def encode(self, tokens: jax.Array) -> jax.Array:
    """Embeds tokens [B, T] as [B, T, D], scaled by √D in the table's dtype."""
    x = self.table[tokens]
    return x * jnp.sqrt(self.config.embed_dim).astype(x.dtype)

  def decode(self, x: jax.Array) -> jax.Array:
    """Unembeds [B, T, D] to float32 logits [B, T, V]."""
    return jnp.einsum(
      "BTD,VD->BTV", x, self.table, preferred_element_type=jnp.float32
    )


class Block(nn.Module):
  """Attention, then a gated MLP, each between two norms."""

  config: GemmaConfig
  layer: int
  mesh: Mesh | None

  @nn.compact
  def __call__(
    self, x: jax.Array, packing: Packing, tap: Tap, columns: CacheColumns | None
  ) -> jax.Array:
    norm = lambda name: RMSNorm(self.config, name=name)
    attention = Attention(self.config, self.layer, self.mesh, name="attn")
    mlp = FeedForward(self.config, name="mlp")

    y = attention(norm("pre_attention_norm")(x), packing, tap, columns)
    x = x + norm("post_attention_norm")(y)
    y = tap("mlp_in", self.layer, rounded(norm("pre_ffw_norm")(x)))
    y = norm("post_ffw_norm")(mlp(y))
    x = x + tap("mlp", self.layer, rounded(y))
    return tap("resid", self.layer, rounded(x))


class Attention(nn.Module):
  """Grouped-query attention with RoPE, optional soft cap and window."""

  config: GemmaConfig
  layer: int
  mesh: Mesh | None

  @nn.compact
  def __call__(
    self, x: jax.Array, packing: Packing, tap: Tap, columns: CacheColumns | None
  ) -> jax.Array:
    c = self.config
    q, k, v = self._project(x)
    if c.qk_norm:
      q = RMSNorm(c, name="_query_norm")(q)
      k = RMSNorm(c, name="_key_norm")(k)
    q = self._rotate(q, packing.positions) * c.query_scale
    k = self._rotate(k, packing.positions)

    heads = self._attend(q, k, v, packing, columns)  # [B, T, N, H]

    flat = rounded(heads.reshape(*heads.shape[:2], -1))
    flat = tap("attn", self.layer, flat)
    heads = flat.reshape(heads.shape)
    shape = (c.num_heads, c.head_dim, c.embed_dim)
    return Einsum(shape, name="attn_vec_einsum")("BTNH,NHD->BTD", heads)

  def _project(self, x):
    """Projects x [B, T, D] to q [B, T, N, H], k and v [B, T, K, H]."""
    c = self.config
    if c.num_heads == c.num_kv_heads:  # the official layout fuses all three
      shape = (3, c.num_heads, c.embed_dim, c.head_dim)
      return Einsum(shape, name="qkv_einsum")("BTD,SNDH->SBTNH", x)
    q_shape = (c.num_heads, c.embed_dim, c.head_dim)
    kv_shape = (2, c.num_kv_heads, c.embed_dim, c.head_dim)
    q = Einsum(q_shape, name="q_einsum")("BTD,NDH->BTNH", x)
    k, v = Einsum(kv_shape, name="kv_einsum")("BTD,SKDH->SBTKH", x)
    return q, k, v

  def _rotate(self, x, positions):
    c = self.config
    if c.is_local(self.layer):
      return apply_rope(x, positions, c.rope_base)
    return apply_rope(x, positions, c.global_rope_base, c.global_rope_scale)

  def _attend(self, q, k, v, packing, columns):
    c = self.config
    how = {
      "window": c.window if c.is_local(self.layer) else None,
      "softcap": c.attn_softcap,
    }
    if columns is not None:
      k = self._write("key", k, columns.start)
      v = self._write("value", v, columns.start)
      if k.shape[1] > q.shape[1]:  # there are more columns than these tokens
        return attend(q, k, v, packing, columns.packing, **how)
    return self._attend_to_itself(q, k, v, packing, how)

  def _write(self, name, new, start):
    """Puts `new` into the cache; returns all S columns."""
    kept = self.get_variable("cache", name)
    kept = jax.lax.dynamic_update_slice_in_dim(kept, new, start, axis=1)
    self.put_variable("cache", name, kept)
    return kept

  def _attend_to_itself(self, q, k, v, packing, how):
    plain = lambda q, k, v, packing: attend(q, k, v, packing, packing, **how)
    fused = lambda q, k, v, packing: splash.attend(
      q, k, v, packing.segments, mesh=self.mesh, **how
    )
    if not splash.fits(q.shape[1], q.shape[-1]):
      return plain(q, k, v, packing)
    return jax.lax.platform_dependent(
      q, k, v, packing, tpu=fused, default=plain
    )


class FeedForward(nn.Module):
  """GeGLU: gelu(x W_gate) ⊙ (x W_up), then W_down."""

  config: GemmaConfig

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
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
  """x / rms(x) · (1 + scale), rounded once, at the end."""

  config: GemmaConfig

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    scale = self.param("scale", nn.initializers.zeros, (x.shape[-1],))
    scale = scale.astype(jnp.float32).reshape((1,) * (x.ndim - 1) + (-1,))
    exact = x.astype(jnp.float32)
    mean_square = jnp.mean(jnp.square(exact), axis=-1, keepdims=True)
    normed = exact * jax.lax.rsqrt(mean_square + self.config.norm_eps)
    return (normed * (1 + scale)).astype(x.dtype)


class Einsum(nn.Module):
  """An einsum with one weight `w`, which sums over its second to last axis."""

  shape: tuple[int, ...]

  @nn.compact
  def __call__(self, equation: str, x: jax.Array) -> jax.Array:
    w = self.param("w", fan_in_normal(self.shape[-2]), self.shape)
    return jnp.einsum(equation, x, w)


def rounded(x: jax.Array) -> jax.Array:
  """Rounds x to the precision of its dtype.

  Otherwise the compiler may skip the rounding of a bfloat16 that is used in
  float32 next, and a tap would see other values than the next layer.
  """
  info = jnp.finfo(x.dtype)
  return jax.lax.reduce_precision(x, info.nexp, info.nmant)


def fan_in_normal(fan_in: int) -> jax.nn.initializers.Initializer:
  """Normal initialiser with variance 1 / fan_in."""
  return nn.initializers.normal(fan_in**-0.5)
