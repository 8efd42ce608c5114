"""TopK: on each token the k largest latents are active, for k = L0*.

(Gao et al., arXiv 2406.04093.) Shapes: N tokens, F latents.
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from jaxsae.errors import UserError
from jaxsae.sae import kth_largest
from jaxsae.sae.architectures.topk_base import TopKBase
from jaxsae.sae.model import Sae


@dataclasses.dataclass(frozen=True, kw_only=True)
class TopK(TopKBase):
  """TopK, with k the target L0 rounded to a whole number."""

  name: ClassVar[str] = "topk"
  whole_target: ClassVar[bool] = True

  def least_active(
    self, pre: jax.Array, mask: jax.Array, target: jax.Array
  ) -> jax.Array:
    """Returns the k-th largest of each token, [N, 1]."""
    del mask
    k = jnp.round(target).astype(jnp.uint32)
    return kth_largest.kth_largest(pre, k, self.order.shards)

  def summed_per_token(self, d: int, revives: bool) -> int:
    """Adds the counts of the search for the k-th largest."""
    return super().summed_per_token(d, revives) + kth_largest.counts()

  def to_sae(self, params: Sae, target: float | None) -> Sae:
    """Adds k, which no scale changes.

    Raises:
      UserError: `target` is missing.
    """
    if target is None:
      raise UserError("folding TopK needs target=, the k it was trained with")
    return params.replace(k=round(float(target)))

  def from_sae(self, sae: Sae) -> Sae:
    """Leaves out k; the target takes its place.

    Raises:
      UserError: latents have thresholds, or there is no k.
    """
    if sae.k is None or bool(jnp.any(sae.threshold)):
      raise UserError(
        "Only a TopK autoencoder without thresholds can start topk."
      )
    return sae.replace(k=None)
