"""BatchTopK: of all latents on all tokens of an update, L0* · n are active.

(Bussmann et al., arXiv 2412.06410.) A token may have more or fewer, as it is
hard or easy. When done it is read as JumpReLU with one threshold: the running
mean of the smallest active latent. Shapes: N tokens, F latents.
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from jaxsae.sae import kth_largest
from jaxsae.sae.architectures.architecture import UpdateInputs, UpdateTokens
from jaxsae.sae.architectures.topk_base import TopKBase
from jaxsae.sae.model import Sae


@dataclasses.dataclass(frozen=True, kw_only=True)
class BatchTopK(TopKBase):
  """`fold` makes it a JumpReLU autoencoder.

  Attributes:
    rate: how fast the threshold follows the smallest active latent (SAELens).
  """

  name: ClassVar[str] = "batch_topk"

  rate: float = 0.01

  def cut(
    self, pre: jax.Array, mask: jax.Array, target: jax.Array
  ) -> jax.Array:
    """That of the tokens that count, wherever they lie: [1, 1]."""
    counted = jnp.where(mask[:, None] > 0, pre, -jnp.inf)
    count = jnp.floor(target * jnp.sum(mask)).astype(jnp.uint32)
    return kth_largest.kth_largest_of_all(counted, count)

  def note(self, least: jax.Array) -> jax.Array:
    """The smallest active latent: 0 if all that are positive are active.

    ∞ if no latent was asked for, as of an update without tokens that count.
    """
    return jax.nn.relu(least[0, 0])

  def post_update(self, params: Sae, stats: jax.Array) -> Sae:
    """The threshold moves towards that of the update; the first sets it.

    SAELens starts at 0 and is too low by a share of 0.99^n after n updates.
    """
    params = super().post_update(params, stats)
    rate = jnp.where(params.threshold > 0, self.rate, 1.0)
    moved = params.threshold + rate * (stats - params.threshold)
    threshold = jnp.where(jnp.isfinite(stats), moved, params.threshold)
    return params.replace(threshold=threshold)

  def diagnose(
    self, before: Sae, params: Sae, tokens: UpdateTokens, inputs: UpdateInputs
  ) -> dict[str, jax.Array]:
    """threshold: what a latent has to be above when the training is over."""
    del before, tokens, inputs
    return {"threshold": jnp.mean(params.threshold)}
