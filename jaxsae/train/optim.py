"""Gemma Scope's optimiser for autoencoders, and the usual one.

Adam with β₁ = 0 keeps no first moment: it is RMSProp with bias correction.
Shapes: S autoencoders.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxsae.sae import Architecture
from jaxsae.sae.architectures.architecture import Params
from jaxsae.train.config.sweep import OptimConfig


def transformation(config: OptimConfig) -> optax.GradientTransformation:
  """The gradient's direction; equal to Adam(b1, b2) before its rate."""
  if config.b1:
    return optax.scale_by_adam(config.b1, config.b2, config.eps)
  return optax.scale_by_rms(
    decay=config.b2, eps=config.eps, eps_in_sqrt=False, bias_correction=True
  )


def learning_rate(
  config: OptimConfig, updates: int, update: jax.Array
) -> jax.Array:
  """The rate of one update out of `updates`, counted from 0; its peak is 1."""
  warm = jnp.minimum(update / max(config.lr_warmup, 1), 1.0)
  rise = 0.1 + 0.9 * 0.5 * (1 - jnp.cos(jnp.pi * warm))
  left = (updates - update) / max(config.lr_decay * updates, 1)
  return rise * jnp.minimum(left, 1.0)


def sparsity_warmup(config: OptimConfig, update: jax.Array) -> jax.Array:
  """Returns the factor of λ in an update: it grows linearly from 0 to 1."""
  return jnp.minimum(update / max(config.sparsity_warmup, 1), 1.0)


def apply(
  config: OptimConfig,
  architecture: Architecture,
  stack: Params,
  grads: Params,
  moments: optax.OptState,
  rates: jax.Array,
  post_update_stats: Any,
) -> tuple[Params, optax.OptState]:
  """One update of a stack, in Gemma Scope's order (§3.2).

  Project the gradient off the directions, then Adam, then bring directions
  back to unit norm; other architectures do as they say.

  Args:
    config: of the optimiser.
    architecture: what it is that learns.
    stack: the autoencoders.
    grads: their gradients.
    moments: Adam's.
    rates: [S].
    post_update_stats: what the architecture post_update_stats of the update.
  """
  grads = jax.vmap(architecture.project)(grads, stack)
  if config.clip is not None:
    grads = jax.vmap(
      functools.partial(_clipped, config.clip, config.vector_rate)
    )(grads)
  updates, moments = transformation(config).update(grads, moments)
  step = functools.partial(_step, config, rates)
  stack = jax.tree.map(step, stack, updates)
  return jax.vmap(architecture.post_update)(stack, post_update_stats), moments


def _step(config: OptimConfig, rates, value, update):
  """An array [S, …] of weights, or of one number for each latent or D."""
  if value.ndim == 2:
    rates = config.vector_rate * rates
  return value - rates.reshape(-1, *(1,) * (value.ndim - 1)) * update


def _clipped(most: float, vector_rate: float, grads: Params) -> Params:
  """One autoencoder's gradient, of a norm of at most `most`.

  Where biases and thresholds move at another rate, their gradients count at
  that rate too: it is what they are in units in which the rates are one.
  """
  weigh = lambda g: g if g.ndim == 2 else vector_rate * g
  norm = optax.tree.norm(jax.tree.map(weigh, grads))
  shrink = most / jnp.maximum(norm, most)
  return jax.tree.map(lambda g: g * shrink, grads)
