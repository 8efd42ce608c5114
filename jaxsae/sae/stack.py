"""Stacks: autoencoders of one shape in arrays with a leading axis S."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jaxsae.sae.architectures import Architecture
from jaxsae.sae.architectures.architecture import Params


def init(
  architecture: Architecture,
  seeds: Sequence[int],
  d_in: int,
  d: int,
  width: int,
  salt: int = 0,
) -> Params:
  """Initialises a stack with one autoencoder for each seed.

  Each depends only on its seed and on the salt, so it starts in a stack as it
  would start alone, and autoencoders with the same seed start alike.

  Args:
    architecture: the architecture of all of them.
    seeds: the seeds.
    d_in: D_in, the width of the site read.
    d: D, the width of the site written.
    width: F, the number of latents.
    salt: makes stacks with the same seeds differ.
  """
  keys = [jax.random.fold_in(jax.random.key(seed), salt) for seed in seeds]
  begin = lambda key: architecture.init(key, d_in, d, width)
  return jax.vmap(begin)(jnp.stack(keys))


def member(stack: Params, index: int) -> Params:
  """Returns one autoencoder of a stack."""
  return jax.tree.map(lambda x: x[index], stack)
