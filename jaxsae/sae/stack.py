"""Autoencoders of one shape as one array, with a leading axis S."""

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
  """One autoencoder for each seed.

  Each depends on its seed and on the salt alone, so one that is trained in a
  stack starts as it would by itself, and those of one seed start alike.
  """
  keys = [jax.random.fold_in(jax.random.key(seed), salt) for seed in seeds]
  begin = lambda key: architecture.init(key, d_in, d, width)
  return jax.vmap(begin)(jnp.stack(keys))


def member(stack: Params, index: int) -> Params:
  """One autoencoder of a stack."""
  return jax.tree.map(lambda x: x[index], stack)
