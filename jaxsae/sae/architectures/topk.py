"""TopK: on each token the k largest latents are active, for k = L0*.

(Gao et al., arXiv 2406.04093.) Shapes: N tokens, D_in, D, F latents.
"""

import dataclasses

import jax
import jax.numpy as jnp

from jaxsae.errors import UserError
from jaxsae.sae import cut
from jaxsae.sae.architectures import auxk
from jaxsae.sae.architectures.architecture import Architecture, report, squared
from jaxsae.sae.model import Sae
from jaxsae.sae.penalty import mean


@dataclasses.dataclass(frozen=True, kw_only=True)
class TopK(Architecture):
  """λ is not looked at: the target L0, a whole number here, is exact.

  Where fewer than k pre-activations are positive only those are active, and
  where some tie with the k-th all of them are.

  Attributes:
    auxk: the weight of what wakes dead latents.
  """

  auxk: float = 1 / 32

  def init(self, key, d_in, d, width):
    start = self.start(key, d_in, d, width)
    return Sae(**start, threshold=jnp.zeros(width))

  def loss(self, params, rows, ask):
    """Mean over tokens of ‖y - ŷ‖², and `auxk.loss`."""
    pre = self.encode(params, rows.x)
    least = self.cut(pre, rows.mask, ask.target)
    latents = jnp.where(pre >= least, jax.nn.relu(pre), 0.0)
    errors = self.errors(params, latents, rows)
    left = [squared(error) for error in errors]
    value = mean(sum(left), rows.mask)
    value += self.auxk * auxk.loss(
      pre, ask.dead, params.w_dec, errors[-1], rows.mask
    )
    noted = self.note(least)
    return value, report(rows, value, left[-1], latents > 0, noted)

  def cut(
    self, pre: jax.Array, mask: jax.Array, target: jax.Array
  ) -> jax.Array:
    """What a pre-activation must reach to be active, [N, 1] or [1, 1]."""
    del mask
    return cut.of_each(pre, jnp.round(target).astype(jnp.uint32))

  def note(self, least: jax.Array):
    """What `settle` needs to know of the cut."""
    del least
    return ()

  def fold(self, params, scale_in, scale_out, *, target=None):
    """As published, with k in it: the order of latents has no scale."""
    if target is None:
      raise UserError("folding TopK needs target=, the k it was trained with")
    folded = super().fold(params, scale_in, scale_out)
    return folded.replace(k=round(float(target)))
