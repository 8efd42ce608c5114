"""What an autoencoder made of its tokens, and where it was wrong.

Shapes: N tokens, D site width, F latents.
"""

from typing import TypeGuard

import jax
import jax.numpy as jnp
from flax import struct

from jaxsae.sae.architectures import (
  Architecture,
  JumpRelu,
  UpdateInputs,
  UpdateStats,
)
from jaxsae.sae.model import Sae
from jaxsae.sae.penalty import L0, BatchQuadratic, Frequency, Quadratic
from jaxsae.sae.sparse.pairs import Pairs, tiles

# They look at which latents are active, never at how much.
PENALTIES = (L0, Quadratic, BatchQuadratic, Frequency)


class ForwardPass(struct.PyTreeNode):
  """All of the forward pass that gradients need, and what is reported.

  Attributes:
    x: what the encoder saw, activations minus b_dec, [N, D].
    error: ∂loss/∂x̂, [N, D].
    l0: ∂loss/∂(L0 of each token), [N].
    mask: [N], over the number of tokens that count.
    frequency: ∂loss/∂(frequency of each latent), [F].
    seen: as `Architecture.loss` has it.
  """

  x: jax.Array
  error: jax.Array
  l0: jax.Array
  mask: jax.Array
  frequency: jax.Array
  seen: UpdateStats


def supports(architecture: Architecture) -> TypeGuard[JumpRelu]:
  """Whether its gradients are of active and in-window pairs alone."""
  if not isinstance(architecture, JumpRelu):
    return False
  counted = all(isinstance(p, PENALTIES) for p in architecture.penalties)
  nested = architecture.prefixes or architecture.transcodes
  return counted and not nested and not architecture.kernel.to_input


def run_forward(
  architecture: JumpRelu,
  sae: Sae,
  x: jax.Array,
  mask: jax.Array,
  inputs: UpdateInputs,
  pairs: Pairs,
) -> ForwardPass:
  """Decodes the pairs; arguments as of `Architecture.loss`, and of `find`."""
  b_dec = sae.b_dec[None, :]
  decoded, l0, fired = _sum(sae, mask, pairs)
  error = decoded + b_dec - x
  tokens = jnp.sum(mask)
  share = mask / jnp.maximum(tokens, 1)
  squared = jnp.sum(jnp.square(error), axis=-1)
  seen = _Counted(l0, fired / jnp.maximum(tokens, 1), share)
  paid, of = _pay(architecture, seen, inputs)
  seen = UpdateStats(
    tokens=tokens,
    loss=tokens * (jnp.sum(share * squared) + paid),
    squared_error=jnp.sum(mask * squared),
    fired=fired,
  )
  return ForwardPass(
    x=x - b_dec,
    error=2 * share[:, None] * error,
    l0=of.l0,
    mask=share,
    frequency=of.frequency,
    seen=seen,
  )


def _sum(sae, mask, pairs):
  """Σ z · direction and Σ active of each token; Σ active of each latent."""

  def add(sums, latent, token, pre, counts):
    decoded, l0, fired = sums
    theta = sae.threshold[latent]
    on = (counts & (pre > theta)).astype(pre.dtype)
    row = (on * pre)[:, None] * sae.w_dec[latent]
    return (
      decoded.at[token].add(row),
      l0.at[token].add(on),
      fired.at[latent].add(on * mask[token]),
    )

  n, (width, d) = len(mask), sae.w_dec.shape
  zeros = jnp.zeros((n, d)), jnp.zeros(n), jnp.zeros(width)
  # After an overflow nobody looks, so there is nothing to do.
  end = jnp.where(pairs.overflow, 0, pairs.count)
  return tiles(pairs, 0, end, add, zeros)


class _Counted(struct.PyTreeNode):
  """As much of `Activity` as the penalties in PENALTIES look at."""

  l0: jax.Array
  frequency: jax.Array
  share: jax.Array

  def mean(self, x):
    return jnp.sum(self.share * x)


def _pay(architecture, seen, inputs):
  """What penalties sum to, and its derivatives, as a _Counted too."""

  def paid(seen):
    each = [
      p(seen, inputs.coefficient, inputs.target) for p in architecture.penalties
    ]
    return sum(each, jnp.zeros(()))

  return jax.value_and_grad(paid)(seen)
