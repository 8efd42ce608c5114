"""BatchTopK: over all n tokens of an update, the L0* · n largest are active.

(Bussmann et al., arXiv 2412.06410.) A hard token may have more active latents
than an easy one. After training it becomes a JumpReLU with one threshold, the
running mean of the smallest active latent. Shapes: N tokens, F latents.
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
  """BatchTopK, which `fold` turns into a JumpReLU autoencoder.

  Attributes:
    rate: how fast the threshold follows the smallest active latent (SAELens).
  """

  name: ClassVar[str] = "batch_topk"

  rate: float = 0.01

  def least_active(
    self, pre: jax.Array, mask: jax.Array, target: jax.Array
  ) -> jax.Array:
    """Returns the least active of all tokens that count, everywhere: [1, 1]."""
    counted = jnp.where(mask[:, None] > 0, pre, -jnp.inf)
    count = jnp.floor(target * jnp.sum(mask)).astype(jnp.uint32)
    shards = self.order.shards
    return kth_largest.kth_largest_of_all(counted, count, shards)

  def post_update_stats(self, least: jax.Array) -> jax.Array:
    """Returns the smallest active latent: 0 if all positive ones are active.

    ∞ if none may be active, as in an update without tokens that count.
    """
    return jax.nn.relu(least[0, 0])

  def post_update(self, params: Sae, stats: jax.Array) -> Sae:
    """Moves the threshold towards the update's; the first update sets it.

    SAELens starts at 0, so its threshold is too low by a share of 0.99^n after
    n updates.
    """
    params = super().post_update(params, stats)
    rate = jnp.where(params.threshold > 0, self.rate, 1.0)
    moved = params.threshold + rate * (stats - params.threshold)
    threshold = jnp.where(jnp.isfinite(stats), moved, params.threshold)
    return params.replace(threshold=threshold)

  def diagnose(
    self, before: Sae, params: Sae, tokens: UpdateTokens, inputs: UpdateInputs
  ) -> dict[str, jax.Array]:
    """Returns `threshold`, the threshold that it has after training."""
    del before, tokens, inputs
    return {"threshold": jnp.mean(params.threshold)}
