"""What an autoencoder made of its tokens, and where it was wrong.

Shapes: N tokens, D site width, F latents.
"""

import functools

import jax
import jax.numpy as jnp
from flax import struct

from jaxsae.sae.loss import Objective, Sums
from jaxsae.sae.model import Sae
from jaxsae.sae.penalty import L0, BatchQuadratic, Frequency, Quadratic
from jaxsae.sae.sparse.pairs import Pairs, tiles

# They look at which latents are active, never at how much.
PENALTIES = (L0, Quadratic, BatchQuadratic, Frequency)


@struct.dataclass
class Reading:
  """All of the forward pass that gradients need, and what is reported.

  Attributes:
    x: what the encoder saw, activations minus b_dec, [N, D].
    error: ∂loss/∂x̂, [N, D].
    l0: ∂loss/∂(L0 of each token), [N].
    mask: [N], over the number of tokens that count.
    frequency: ∂loss/∂(frequency of each latent), [F].
    sums: as `loss` has them.
    fired: how often each latent fired, [F].
  """

  x: jax.Array
  error: jax.Array
  l0: jax.Array
  mask: jax.Array
  frequency: jax.Array
  sums: Sums
  fired: jax.Array


def supports(objective: Objective) -> bool:
  """Whether its gradients are of active and in-window pairs alone."""
  counted = all(isinstance(p, PENALTIES) for p in objective.penalties)
  return counted and not objective.kernel.to_input


def read(
  sae: Sae,
  x: jax.Array,
  mask: jax.Array,
  objective: Objective,
  coefficient: jax.Array,
  target: jax.Array,
  pairs: Pairs,
) -> Reading:
  """Decodes the pairs; arguments as of `loss`, and of `find`."""
  b_dec = sae.b_dec[None, :]
  decoded, l0, inside, fired = _sum(sae, mask, objective.kernel, pairs)
  error = decoded + b_dec - x
  tokens = jnp.sum(mask)
  share = mask / jnp.maximum(tokens, 1)
  squared = jnp.sum(jnp.square(error), axis=-1)
  seen = _Counted(l0, fired / jnp.maximum(tokens, 1), share)
  paid, of = _pay(objective, seen, coefficient, target)
  sums = Sums(
    tokens=tokens,
    loss=tokens * (jnp.sum(share * squared) + paid),
    squared_error=jnp.sum(mask * squared),
    l0=jnp.sum(mask * l0),
    in_window=inside / sae.width,
  )
  return Reading(
    x=x - b_dec,
    error=2 * share[:, None] * error,
    l0=of.l0,
    mask=share,
    frequency=of.frequency,
    sums=sums,
    fired=fired,
  )


def _sum(sae, mask, kernel, pairs):
  """Σ z · direction and Σ active of each token; in-window; of each latent."""

  def add(sums, latent, token, pre, counts):
    decoded, l0, inside, fired = sums
    theta = sae.threshold[latent]
    on = (counts & (pre > theta)).astype(pre.dtype)
    near = counts & (jnp.abs(pre - theta) < kernel.bandwidth / 2)
    row = (on * pre)[:, None] * sae.w_dec[latent]
    return (
      decoded.at[token].add(row),
      l0.at[token].add(on),
      inside + jnp.sum(jnp.where(near, mask[token], 0.0)),
      fired.at[latent].add(on * mask[token]),
    )

  n, (width, d) = len(mask), sae.w_dec.shape
  zeros = jnp.zeros((n, d)), jnp.zeros(n), jnp.zeros(()), jnp.zeros(width)
  # After an overflow nobody looks, so there is nothing to do.
  end = jnp.where(pairs.overflow, 0, pairs.count)
  return tiles(pairs, 0, end, add, zeros)


@struct.dataclass
class _Counted:
  """As much of `Activity` as the penalties in PENALTIES look at."""

  l0: jax.Array
  frequency: jax.Array
  share: jax.Array

  def mean(self, x):
    return jnp.sum(self.share * x)


def _pay(objective, seen, coefficient, target):
  """What penalties sum to, and its derivatives, as a _Counted too."""

  def paid(seen):
    each = [p(seen, coefficient, target) for p in objective.penalties]
    return functools.reduce(jnp.add, each, jnp.zeros(()))

  return jax.value_and_grad(paid)(seen)
