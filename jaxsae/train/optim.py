"""Gemma Scope's optimiser for autoencoders.

Adam with β₁ = 0 keeps no first moment: it is RMSProp with bias correction.
Shapes: S autoencoders, D site width, F latents.
"""

import jax
import jax.numpy as jnp
import optax

from jaxsae.sae import Sae
from jaxsae.sae import stack as stacks
from jaxsae.train.config import OptimConfig


def transformation(config: OptimConfig) -> optax.GradientTransformation:
  """The gradient's direction; equal to Adam(0, b2) before its rate."""
  return optax.scale_by_rms(
    decay=config.b2, eps=config.eps, eps_in_sqrt=False, bias_correction=True
  )


def learning_rate(
  config: OptimConfig, updates: int, update: jax.Array
) -> jax.Array:
  """The rate of one update out of `updates`, counted from 0."""
  warm = jnp.minimum(update / max(config.lr_warmup, 1), 1.0)
  rise = 0.1 + 0.9 * 0.5 * (1 - jnp.cos(jnp.pi * warm))
  left = (updates - update) / max(config.lr_decay * updates, 1)
  return config.lr * rise * jnp.minimum(left, 1.0)


def sparsity_warmup(config: OptimConfig, update: jax.Array) -> jax.Array:
  """What multiplies λ: linear from 0 to 1."""
  return jnp.minimum(update / max(config.sparsity_warmup, 1), 1.0)


def apply(
  config: OptimConfig,
  stack: Sae,
  grads: Sae,
  moments: optax.OptState,
  rate: jax.Array,
) -> tuple[Sae, optax.OptState]:
  """One update of a stack, in Gemma Scope's order (§3.2).

  Project the gradient off the directions, then Adam, then bring directions
  back to unit norm. Thresholds stay positive by clipping at zero.
  """
  grads = grads.replace(w_dec=stacks.drop_parallel(grads.w_dec, stack.w_dec))
  updates, moments = transformation(config).update(grads, moments)
  stack = jax.tree.map(lambda p, u: p - rate * u, stack, updates)
  stack = stack.replace(
    w_dec=stacks.unit_rows(stack.w_dec),
    threshold=jnp.maximum(stack.threshold, 0.0),
  )
  return stack, moments
