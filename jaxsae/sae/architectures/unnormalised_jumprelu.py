"""JumpReLU whose directions may have any norm.

Directions and encoders start short, so the first updates turn them far, and the
result depends less on where they started. After few updates, latents are
cleaner than with unit directions (`docs/synthetic.md`). Shapes: F latents.
"""

import dataclasses
from typing import ClassVar

import jax

from jaxsae.sae.architectures.architecture import with_unit_directions
from jaxsae.sae.architectures.jumprelu import JumpRelu
from jaxsae.sae.model import Sae


@dataclasses.dataclass(frozen=True, kw_only=True)
class UnnormalisedJumpRelu(JumpRelu):
  """JumpReLU with directions of any norm, as in Anthropic's and SAELens' SAEs.

  Attributes:
    norm: the norm of directions at the start, and of encoders.
  """

  name: ClassVar[str] = "free_jumprelu"

  norm: float = 0.1

  def init(self, key: jax.Array, d_in: int, d: int, width: int) -> Sae:
    start = super().init(key, d_in, d, width)
    return start.replace(
      w_enc=self.norm * start.w_enc, w_dec=self.norm * start.w_dec
    )

  def project(self, grads: Sae, params: Sae) -> Sae:
    """Leaves gradients as they are: norms of directions are learned too."""
    del params
    return grads

  def post_update(self, params: Sae, stats: object) -> Sae:
    """Corrects thresholds, and leaves directions as they are."""
    corrected = super().post_update(params, stats)
    return corrected.replace(w_dec=params.w_dec)

  def to_sae(self, params: Sae, target: float | None) -> Sae:
    """Normalises directions; latents grow by their former norms."""
    del target
    return with_unit_directions(params)
