"""A language model as one value: weights, configuration, tokenizer."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from jaxsae.lm.config import GemmaConfig
from jaxsae.lm.gemma import Gemma, Tap, pass_through
from jaxsae.lm.tokenizer import Tokenizer


@struct.dataclass
class Lm:
  """A pytree of weights that also knows its configuration and tokenizer.

  Attributes:
    params: the parameters, named and nested as in the official library.
    config: sizes.
    tokenizer: text ⇄ token ids, or None if the weights came without one.
    name: what it was loaded as.
  """

  params: Any
  config: GemmaConfig = struct.field(pytree_node=False)
  tokenizer: Tokenizer | None = struct.field(pytree_node=False, default=None)
  name: str = struct.field(pytree_node=False, default="")

  def logits(self, tokens, segments=None, positions=None) -> jax.Array:
    """Next-token logits [B, T, V] in float32 for tokens int [B, T]."""
    return self.apply(tokens, segments, positions)

  def apply(
    self,
    tokens: jax.Array,
    segments: jax.Array | None = None,
    positions: jax.Array | None = None,
    tap: Tap = pass_through,
    num_blocks: int | None = None,
  ) -> jax.Array:
    """`Gemma.__call__`; by default each row of tokens is one document."""
    if segments is None:
      segments = jnp.ones_like(tokens)
    if positions is None:
      positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
    return Gemma(self.config).apply(
      {"params": self.params}, tokens, segments, positions, tap, num_blocks
    )

  def text_mask(self, tokens: jax.Array, segments: jax.Array) -> jax.Array:
    """1.0 where a token is text, 0.0 for padding, BOS and EOS; [B, T]."""
    mask = segments > 0
    if self.tokenizer is not None:
      mask &= tokens != self.tokenizer.bos
      if self.tokenizer.eos is not None:
        mask &= tokens != self.tokenizer.eos
    return mask.astype(jnp.float32)


def init_params(config: GemmaConfig, key: jax.Array) -> Any:
  """Fresh float32 parameters."""
  row = jnp.zeros((1, 1), jnp.int32)
  return Gemma(config).init(key, row, row + 1, row)["params"]
