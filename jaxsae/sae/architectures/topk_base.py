"""The base of TopK and BatchTopK, in which the largest latents are active.

Shapes: N tokens, D_in, D, F latents.
"""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jaxsae.sae import kth_largest
from jaxsae.sae.architectures import auxk
from jaxsae.sae.architectures.architecture import (
  Architecture,
  UpdateInputs,
  UpdateStats,
  UpdateTokens,
  squared,
  update_stats,
)
from jaxsae.sae.model import Sae
from jaxsae.sae.penalty import mean


@dataclasses.dataclass(frozen=True, kw_only=True)
class TopKBase(Architecture):
  """The base of architectures whose target L0 sets how many are active.

  They don't use λ. Fewer are active where fewer are positive, and more where
  some tie with the smallest.

  Attributes:
    auxk: the weight of `auxk.loss`, which revives dead latents.
  """

  uses_target: ClassVar[bool] = True
  wake_after: ClassVar[int | None] = 10_000_000

  auxk: float = 1 / 32

  def init(self, key: jax.Array, d_in: int, d: int, width: int) -> Sae:
    start = self.start(key, d_in, d, width)
    return Sae(**start, threshold=jnp.zeros(width))

  def loss(
    self, params: Sae, tokens: UpdateTokens, inputs: UpdateInputs
  ) -> tuple[jax.Array, UpdateStats]:
    """Returns the mean over tokens of ‖y - ŷ‖², plus the AuxK loss."""
    pre = self.encode(params, tokens.x)
    least = self.least_active(pre, tokens.mask, inputs.target)
    latents = jnp.where(pre >= least, jax.nn.relu(pre), 0.0)
    errors = self.errors(params, latents, tokens)
    left = [squared(error) for error in errors]
    wake = auxk.loss(
      pre,
      inputs.dead,
      params.w_dec,
      errors[-1],
      tokens.mask,
      self.order.shards,
    )
    value = mean(sum(left, jnp.zeros(())), tokens.mask) + self.auxk * wake
    return value, update_stats(
      tokens, value, left[-1], latents > 0, self.post_update_stats(least)
    )

  def summed_per_token(self, d: int, revives: bool) -> int:
    """Adds what AuxK sums, as if in every update a latent were dead."""
    woken = d + kth_largest.counts() if revives else 0
    return super().summed_per_token(d, revives) + woken

  def least_active(
    self, pre: jax.Array, mask: jax.Array, target: jax.Array
  ) -> jax.Array:
    """Returns the least active pre-activation, [N, 1] or [1, 1]."""
    raise NotImplementedError

  def post_update_stats(self, least: jax.Array) -> Any:
    """Returns the figures that `post_update` needs; by default none."""
    del least
    return ()
