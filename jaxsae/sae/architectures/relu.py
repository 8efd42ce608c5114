"""ReLU with an L1 penalty weighted by the norms of directions.

(Anthropic, "Circuits Updates", April 2024.) Shapes: N tokens, D_in, D, F.
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from jaxsae.errors import UserError
from jaxsae.sae.architectures.architecture import (
  Architecture,
  UpdateInputs,
  UpdateStats,
  UpdateTokens,
  update_stats,
  with_unit_directions,
)
from jaxsae.sae.model import Sae
from jaxsae.sae.penalty import mean


@dataclasses.dataclass(frozen=True, kw_only=True)
class Relu(Architecture):
  """ReLU, whose directions may have any norm; thresholds stay at zero.

  Attributes:
    norm: the norm of directions at the start, and of encoders.
  """

  name: ClassVar[str] = "relu"

  norm: float = 0.1

  def init(self, key: jax.Array, d_in: int, d: int, width: int) -> Sae:
    start = self.start(key, d_in, d, width)
    scaled = {name: self.norm * start[name] for name in ("w_enc", "w_dec")}
    return Sae(**{**start, **scaled}, threshold=jnp.zeros(width))

  def loss(
    self, params: Sae, tokens: UpdateTokens, inputs: UpdateInputs
  ) -> tuple[jax.Array, UpdateStats]:
    """Returns the mean over tokens of ‖y - ŷ‖² + λ Σ f_i ‖W_dec,i‖."""
    latents = jax.nn.relu(self.encode(params, tokens.x))
    errors = self.squared_errors(params, latents, tokens)
    norms = jnp.linalg.norm(params.w_dec, axis=-1)
    paid = inputs.coefficient * (latents @ norms)
    value = mean(sum(errors) + paid, tokens.mask)
    return value, update_stats(tokens, value, errors[-1], latents > 0)

  def project(self, grads: Sae, params: Sae) -> Sae:
    """Leaves gradients as they are: norms of directions are learned too."""
    del params
    return grads

  def post_update(self, params: Sae, stats: object) -> Sae:
    """Leaves the arrays as they are."""
    del stats
    return params

  def to_sae(self, params: Sae, target: float | None) -> Sae:
    """Normalises directions; latents grow by their former norms."""
    del target
    return with_unit_directions(params)

  def from_sae(self, sae: Sae) -> Sae:
    """Leaves a ReLU autoencoder as it is.

    Raises:
      UserError: latents have thresholds, or only k are active.
    """
    if bool(jnp.any(sae.threshold)):
      raise UserError(
        "An autoencoder with thresholds cannot start relu; only jumprelu."
      )
    return super().from_sae(sae)
