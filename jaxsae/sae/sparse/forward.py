"""The forward pass from pairs: reconstructions, errors and penalties.

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

# Penalties that depend on which latents are active, not on how strongly.
PENALTIES = (L0, Quadratic, BatchQuadratic, Frequency)


class ForwardPass(struct.PyTreeNode):
  """The parts of a forward pass that gradients need, and its figures.

  Attributes:
    x: the encoder's input, activations minus b_dec, [N, D].
    error: ∂loss/∂x̂, [N, D].
    l0: ∂loss/∂(L0 of each token), [N].
    mask: the mask over the number of tokens that count, [N].
    frequency: ∂loss/∂(frequency of each latent), [F].
    seen: the figures that `Architecture.loss` returns.
  """

  x: jax.Array
  error: jax.Array
  l0: jax.Array
  mask: jax.Array
  frequency: jax.Array
  seen: UpdateStats


def supports(architecture: Architecture) -> TypeGuard[JumpRelu]:
  """Returns whether only active and in-window pairs have gradients.

  An architecture that only derives from JumpReLU has a loss of its own.
  """
  if not isinstance(architecture, JumpRelu):
    return False
  if type(architecture).loss is not JumpRelu.loss:
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
  """Decodes the pairs, and computes errors, penalties and figures.

  Args:
    architecture: an architecture that `supports` accepts.
    sae: one autoencoder in training.
    x: scaled activations, [N, D].
    mask: [N], 1 for tokens that count.
    inputs: its settings in this update.
    pairs: the pairs that `find` found.
  """
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
  """Sums z · direction and activity per token, and activity per latent."""

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
  # After an overflow the result is not used, so there is nothing to do.
  end = jnp.where(pairs.overflow, 0, pairs.count)
  return tiles(pairs, 0, end, add, zeros)


class _Counted(struct.PyTreeNode):
  """The part of `Activity` that the penalties in PENALTIES use."""

  l0: jax.Array
  frequency: jax.Array
  share: jax.Array

  def mean(self, x):
    return jnp.sum(self.share * x)


def _pay(architecture, seen, inputs):
  """Returns the sum of penalties, and its derivatives as a `_Counted`."""

  def paid(seen):
    each = [
      p(seen, inputs.coefficient, inputs.target) for p in architecture.penalties
    ]
    return sum(each, jnp.zeros(()))

  return jax.value_and_grad(paid)(seen)
