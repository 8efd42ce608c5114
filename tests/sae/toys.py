"""JumpReLU's loss as a function of plain arguments, and small stacks."""

import jax
import jax.numpy as jnp

from jaxsae.sae import JumpRelu, UpdateInputs, UpdateTokens
from jaxsae.sae import stack as stacks


def loss(sae, x, mask, dead, architecture, coefficient, target):
  """The loss, and what was seen."""
  rows = UpdateTokens(x, x, mask)
  inputs = UpdateInputs(jnp.asarray(coefficient), jnp.asarray(target), dead)
  return architecture.loss(sae, rows, inputs)


def gradients(sae, *rest):
  """The gradient of `loss`, and what was seen."""
  return jax.grad(loss, has_aux=True)(sae, *rest)


def stack(size, threshold, d=8, width=32):
  """Makes a stack of several autoencoders with different seeds."""
  architecture = JumpRelu(threshold=threshold)
  return stacks.init(architecture, range(size), d, d, width)
