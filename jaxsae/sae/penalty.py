"""What it costs to be active: the ways to ask for sparsity.

A penalty is a small frozen value that is called with what one autoencoder did
in one update, with λ and with L0*, and returns a scalar. It is hashable, so it
is static under jit; λ and L0* are arrays, so a stack is trained by vmap.

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
  """What one autoencoder did in one update; gradients are straight-through.

  Attributes:
    pre: pre-activations [N, F].
    threshold: [F].
    w_dec: [F, D].
    mask: [N], 1 for tokens that count and 0 for special ones.
    kernel: of the straight-through gradients.
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
    """[N, F]."""
    return self._activated[0]

  @property
  def active(self) -> jax.Array:
    """[N, F], 1 where a latent is active."""
    return self._activated[1]

  @property
  def l0(self) -> jax.Array:
    """Active latents of each token, [N]."""
    return jnp.sum(self.active, axis=-1)

  @functools.cached_property
  def frequency(self) -> jax.Array:
    """The share of tokens on which each latent is active, [F]."""
    return mean(self.active, self.mask)

  def mean(self, x: jax.Array) -> jax.Array:
    """Mean of x [N, …] over the tokens that count, wherever they lie."""
    return mean(x, self.mask)


def mean(x: jax.Array, mask: jax.Array) -> jax.Array:
  """Mean of x [N, …] over the tokens of mask [N]; 0 where there is none."""
  mask = mask.reshape(-1, *(1,) * (x.ndim - 1))
  return jnp.sum(mask * x, axis=0) / jnp.maximum(jnp.sum(mask), 1)


class Penalty(Protocol):
  """The interface; `pulls_to_target` says whether L0* is looked at."""

  pulls_to_target: ClassVar[bool]

  def __call__(
    self, seen: Activity, coefficient: jax.Array, target: jax.Array
  ) -> jax.Array:
    """A scalar, from λ and L0*, both scalars."""
    ...


@dataclasses.dataclass(frozen=True)
class L0:
  """λ · mean L0 (Gemma Scope; arXiv 2407.14435)."""

  pulls_to_target: ClassVar[bool] = False

  def __call__(
    self, seen: Activity, coefficient: jax.Array, target: jax.Array
  ) -> jax.Array:
    del target
    return coefficient * jnp.sum(seen.frequency)


@dataclasses.dataclass(frozen=True)
class Quadratic:
  """λ · mean (2/L0*) (L0 - L0*)², squared for each token (Gemma Scope 2 §2).

  By this formula a latent more costs 4λ at L0 = 2 L0*, and as much as under
  `L0` at 1.25 L0*. It also pulls at the spread of L0 over tokens.
  """

  pulls_to_target: ClassVar[bool] = True

  def __call__(
    self, seen: Activity, coefficient: jax.Array, target: jax.Array
  ) -> jax.Array:
    off = jnp.square(seen.l0 - target)
    return coefficient * (2 / target) * seen.mean(off)


@dataclasses.dataclass(frozen=True)
class BatchQuadratic:
  """λ · (mean L0 / L0* - 1)² (arXiv 2407.14435, appendix on a target L0).

  The mean is over all tokens of the update, on all devices, and is taken
  before squaring, so single tokens may have any L0. Near the target it needs a
  λ 2 L0* times that of `Quadratic` to pull as hard.
  """

  pulls_to_target: ClassVar[bool] = True

  def __call__(
    self, seen: Activity, coefficient: jax.Array, target: jax.Array
  ) -> jax.Array:
    return coefficient * jnp.square(jnp.sum(seen.frequency) / target - 1)


@dataclasses.dataclass(frozen=True)
class Tanh:
  """λ · mean Σ_i tanh(c f_i ‖W_dec,i‖) (Anthropic, January 2025; SAELens).

  Latents f are differentiable, so encoders are trained to be sparse too.

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
  """λ Σ_i p_i² / ω, for p_i the share of tokens on which latent i is active.

  Against latents that are nearly always active; it goes on top of another.
  Published: that DeepMind adds to the L0 penalty a term proportional to the
  mean of squared frequencies, with a scale ω at which it outgrows the linear
  one, differentiated as L0 is, and that Gemma Scope 2 adds such a term to its
  quadratic penalty. Not published: the exact form and the weight. This is our
  reading: λ Σ p_i + λ Σ p_i²/ω = λ Σ p_i (1 + p_i/ω), under one λ.

  On top of `L0`, latents far rarer than ω are left alone. On top of a pull to
  a target it moves L0 below it, for at the target that pull is none: by a share
  of about p/(2ω) on `Quadratic`, p being that of the latents concerned, and
  2 L0* times as much on `BatchQuadratic`, whose λ is that much larger.

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
