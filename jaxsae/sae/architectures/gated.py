"""Gated: separate paths decide if a latent is active, and how strongly.

  π = (x - b_dec) W_enc + b_gate             active where π > 0
  m = e^r ∘ ((x - b_dec) W_enc) + b_mag      by relu(m)

(Rajamanoharan et al., arXiv 2404.16014.) Shapes: N tokens, D_in, D, F latents.
"""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import struct

from jaxsae.brief import fields
from jaxsae.sae import linear
from jaxsae.sae.architectures.architecture import (
  Architecture,
  UpdateInputs,
  UpdateStats,
  UpdateTokens,
  update_stats,
)
from jaxsae.sae.model import Sae
from jaxsae.sae.penalty import mean


class GatedSae(struct.PyTreeNode):
  """A gated autoencoder in training.

  Attributes:
    w_enc: [D_in, F], the gate's encoder.
    r_mag: [F], r; the encoder of magnitudes is e^r W_enc.
    b_gate: [F], the bias of the gate.
    b_mag: [F], the bias of magnitudes.
    w_dec: [F, D].
    b_dec: [D].
    w_skip: [D_in, D], a transcoder's affine skip, or None.
  """

  w_enc: jax.Array
  r_mag: jax.Array
  b_gate: jax.Array
  b_mag: jax.Array
  w_dec: jax.Array
  b_dec: jax.Array
  w_skip: jax.Array | None = None

  __repr__ = fields


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gated(Architecture):
  """Gated autoencoders, whose gate learns from λ and from its own errors."""

  name: ClassVar[str] = "gated"
  axes: ClassVar[Mapping[str, str]] = {
    "w_enc": "DF",
    "r_mag": "F",
    "b_gate": "F",
    "b_mag": "F",
    "w_dec": "FD",
    "b_dec": "D",
    "w_skip": "DD",
  }

  def init(self, key: jax.Array, d_in: int, d: int, width: int) -> GatedSae:
    start = self.start(key, d_in, d, width)
    zeros = start.pop("b_enc")
    return GatedSae(**start, r_mag=zeros, b_gate=zeros, b_mag=zeros)

  def loss(
    self, params: GatedSae, tokens: UpdateTokens, inputs: UpdateInputs
  ) -> tuple[jax.Array, UpdateStats]:
    """Returns the mean of ‖y - ŷ‖² + λ Σ relu(π)_i ‖W_dec,i‖ + ‖y - ŷ(π)‖².

    ŷ(π) is the reconstruction from relu(π), by a decoder that gets no gradient
    from it, and from all latents even if there are prefixes. Directions have
    unit norm here; their norms are in the formula for subclasses in which they
    have not.
    """
    gate, magnitude = self._paths(params, tokens.x)
    latents = jnp.where(gate > 0, jax.nn.relu(magnitude), 0.0)
    errors = self.squared_errors(params, latents, tokens)
    open_by = jax.nn.relu(gate)
    paid = open_by @ jnp.linalg.norm(params.w_dec, axis=-1)
    frozen = jax.lax.stop_gradient(params)
    whole = dataclasses.replace(self, prefixes=())
    aside = whole.squared_errors(frozen, open_by, tokens)[-1]
    value = mean(sum(errors) + inputs.coefficient * paid + aside, tokens.mask)
    return value, update_stats(tokens, value, errors[-1], latents > 0)

  def summed_per_token(self, d: int, revives: bool) -> int:
    """Adds what the gate's path reconstructs."""
    return super().summed_per_token(d, revives) + d

  def _paths(self, params, x):
    """Returns π and m, [N, F] each."""
    zeros = jnp.zeros_like(params.b_gate)
    plain = linear.encode(x, params.w_enc, zeros, self.centre(params))
    magnitude = jnp.exp(params.r_mag)[None, :] * plain
    return plain + params.b_gate[None, :], magnitude + params.b_mag[None, :]

  def to_sae(self, params: GatedSae, target: float | None) -> Sae:
    """Converts it to a JumpReLU of m, active where π > 0 and m > 0.

    π > 0 is the same as m > b_mag - e^r b_gate.
    """
    del target
    ratio = jnp.exp(params.r_mag)
    return Sae(
      w_enc=params.w_enc * ratio[None, :],
      b_enc=params.b_mag,
      w_dec=params.w_dec,
      b_dec=params.b_dec,
      threshold=jax.nn.relu(params.b_mag - ratio * params.b_gate),
      w_skip=params.w_skip,
    )

  def from_sae(self, sae: Sae) -> GatedSae:
    """Converts a JumpReLU, with r = 0: z > θ is the same as π > 0.

    Raises:
      UserError: only k latents are active.
    """
    sae = super().from_sae(sae)
    return GatedSae(
      w_enc=sae.w_enc,
      r_mag=jnp.zeros_like(sae.b_enc),
      b_gate=sae.b_enc - sae.threshold,
      b_mag=sae.b_enc,
      w_dec=sae.w_dec,
      b_dec=sae.b_dec,
      w_skip=sae.w_skip,
    )
