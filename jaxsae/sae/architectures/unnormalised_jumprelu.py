"""JumpReLU whose directions may have any norm.

Directions and encoders start short, so the first updates turn them far: what is
learned depends less on where they started. Where updates are few, latents are
cleaner than with directions that are unit from the start
(`docs/synthetic.md`). Shapes: F latents.
"""

import dataclasses
from typing import ClassVar

import jax

from jaxsae.sae.architectures.architecture import with_unit_directions
from jaxsae.sae.architectures.jumprelu import JumpRelu
from jaxsae.sae.model import Sae


@dataclasses.dataclass(frozen=True, kw_only=True)
class UnnormalisedJumpRelu(JumpRelu):
  """Anthropic's and SAELens' start and freedom, with JumpRelu's loss.

  Attributes:
    norm: of directions at the start, and of encoders.
  """

  name: ClassVar[str] = "free_jumprelu"

  norm: float = 0.1

  def init(self, key: jax.Array, d_in: int, d: int, width: int) -> Sae:
    start = super().init(key, d_in, d, width)
    return start.replace(
      w_enc=self.norm * start.w_enc, w_dec=self.norm * start.w_dec
    )

  def project(self, grads: Sae, params: Sae) -> Sae:
    """As they are: the norms of directions are learned too."""
    del params
    return grads

  def post_update(self, params: Sae, stats: object) -> Sae:
    """Directions as the optimiser made them."""
    settled = super().post_update(params, stats)
    return settled.replace(w_dec=params.w_dec)

  def fold(
    self,
    params: Sae,
    scale_in: jax.Array | float,
    scale_out: jax.Array | float,
    *,
    target: float | None = None,
  ) -> Sae:
    """Directions become unit, and latents grow by what their norms were."""
    unit = with_unit_directions(params)
    return super().fold(unit, scale_in, scale_out, target=target)
