"""Sparsity penalties of JumpReLU: what a loss adds for active latents.

A penalty is a small frozen value. It is called with the activity of one
autoencoder in one update, with λ and with L0*, and returns a scalar. It is
hashable, so it is static under jit; λ and L0* are arrays, so a stack trains by
vmap.

Shapes: N tokens, D site width, F latents.
"""

import dataclasses
import functools
from typing import ClassVar, Protocol

import jax
import jax.numpy as jnp

from jaxsae.sae.straight_through import Kernel, activate


@dataclasses.dataclass(frozen=True)
class Activity:
  """The activity of one autoencoder in one update.

  Gradients are straight-through.

  Attributes:
    pre: pre-activations [N, F].
    threshold: [F].
    w_dec: [F, D].
    mask: [N], 1 for tokens that count and 0 for special tokens.
    kernel: the kernel of the straight-through gradients.
  """

  pre: jax.Array
  threshold: jax.Array
  w_dec: jax.Array
  mask: jax.Array
  kernel: Kernel

  @functools.cached_property
  def _activated(self) -> tuple[jax.Array, jax.Array]:
    return activate(self.pre, self.threshold, self.kernel)

  @property
  def latents(self) -> jax.Array:
    """The latents, [N, F]."""
    return self._activated[0]

  @property
  def active(self) -> jax.Array:
    """Marks active latents: 1 or 0, [N, F]."""
    return self._activated[1]

  @property
  def l0(self) -> jax.Array:
    """The number of active latents on each token, [N]."""
    return jnp.sum(self.active, axis=-1)

  @functools.cached_property
  def frequency(self) -> jax.Array:
    """The share of tokens on which each latent is active, [F]."""
    return mean(self.active, self.mask)

  def mean(self, x: jax.Array) -> jax.Array:
    """Averages x [N, …] over the tokens that count, on all devices."""
    return mean(x, self.mask)


def mean(x: jax.Array, mask: jax.Array) -> jax.Array:
  """Averages x [N, …] over the tokens of mask [N]; 0 if there are none."""
  mask = mask.reshape(-1, *(1,) * (x.ndim - 1))
  return jnp.sum(mask * x, axis=0) / jnp.maximum(jnp.sum(mask), 1)


class Penalty(Protocol):
  """The protocol of penalties.

  Attributes:
    pulls_to_target: whether it uses L0*.
  """

  pulls_to_target: ClassVar[bool]

  def __call__(
    self, seen: Activity, coefficient: jax.Array, target: jax.Array
  ) -> jax.Array:
    """Returns the penalty, a scalar, from the scalars λ and L0*."""
    ...


@dataclasses.dataclass(frozen=True)
class L0:
  """The L0 penalty, λ · mean L0 (Gemma Scope; arXiv 2407.14435)."""

  pulls_to_target: ClassVar[bool] = False

  def __call__(
    self, seen: Activity, coefficient: jax.Array, target: jax.Array
  ) -> jax.Array:
    del target
    return coefficient * jnp.sum(seen.frequency)


@dataclasses.dataclass(frozen=True)
class Quadratic:
  """The pull of every token to a target L0: λ · mean (2/L0*) (L0 - L0*)².

  (Gemma Scope 2 §2.) One more active latent adds 4λ at L0 = 2 L0*, and as much
  as under `L0` at L0 = 1.25 L0*. The penalty also reduces the variance of L0
  over tokens.
  """

  pulls_to_target: ClassVar[bool] = True

  def __call__(
    self, seen: Activity, coefficient: jax.Array, target: jax.Array
  ) -> jax.Array:
    off = jnp.square(seen.l0 - target)
    return coefficient * (2 / target) * seen.mean(off)


@dataclasses.dataclass(frozen=True)
class BatchQuadratic:
  """The pull of an update's mean L0 to a target: λ · (mean L0 / L0* - 1)².

  (arXiv 2407.14435, appendix on a target L0.) The mean is over all tokens of
  the update, on all devices, and is taken before squaring, so single tokens may
  have any L0. To pull as hard near the target, it needs 2 L0* times the λ of
  `Quadratic`.
  """

  pulls_to_target: ClassVar[bool] = True

  def __call__(
    self, seen: Activity, coefficient: jax.Array, target: jax.Array
  ) -> jax.Array:
    return coefficient * jnp.square(jnp.sum(seen.frequency) / target - 1)


@dataclasses.dataclass(frozen=True)
class Tanh:
  """The tanh penalty, λ · mean Σ_i tanh(c f_i ‖W_dec,i‖).

  (Anthropic, January 2025; SAELens.) It is differentiable in the latents f, so
  it trains encoders to be sparse too.

  Attributes:
    scale: c.
  """

  scale: float = 4.0
  pulls_to_target: ClassVar[bool] = False

  def __call__(
    self, seen: Activity, coefficient: jax.Array, target: jax.Array
  ) -> jax.Array:
    del target
    norms = jnp.linalg.norm(seen.w_dec, axis=-1)
    bent = jnp.tanh(self.scale * seen.latents * norms[None, :])
    return coefficient * seen.mean(jnp.sum(bent, axis=-1))


@dataclasses.dataclass(frozen=True)
class Frequency:
  """The penalty on latents that are nearly always active, λ Σ_i p_i² / ω.

  p_i is the share of tokens on which latent i is active. This penalty is added
  to another. Published: that DeepMind adds to the L0 penalty a term
  proportional to the mean of squared frequencies, with a scale ω at which it
  outgrows the linear term, differentiated as L0 is; and that Gemma Scope 2 adds
  such a term to its quadratic penalty. Not published: the exact form and the
  weight. This is our reading: λ Σ p_i + λ Σ p_i²/ω = λ Σ p_i (1 + p_i/ω), with
  one λ.

  Added to `L0`, it leaves latents far rarer than ω alone. Added to a pull to a
  target, it moves L0 below the target, where that pull vanishes: by a share of
  about p/(2ω) with `Quadratic`, where p is the frequency of the latents
  concerned, and by 2 L0* times as much with `BatchQuadratic`, whose λ is that
  much larger.

  Attributes:
    scale: ω.
  """

  scale: float
  pulls_to_target: ClassVar[bool] = False

  def __call__(
    self, seen: Activity, coefficient: jax.Array, target: jax.Array
  ) -> jax.Array:
    del target
    squares = jnp.sum(jnp.square(seen.frequency))
    return coefficient * squares / self.scale
