"""Training on activations that are already there, without a language model.

Shapes: N tokens, D site width.
"""

import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jaxsae import mesh as meshes
from jaxsae.sae import Sae
from jaxsae.sae.normalisation import estimate_scale
from jaxsae.train.config.run import TrainConfig
from jaxsae.train.group import Group, groups
from jaxsae.train.state import StackState, folded, init_stack
from jaxsae.train.update import Progress, Tokens, update_group


def train_on(
  config: TrainConfig, draw: Iterator[jax.Array], scale_on: jax.Array
) -> dict[str, Sae]:
  """Trains the autoencoders of one site, as a run would.

  Args:
    config: the sweeps, and how many updates; of one site.
    draw: raw activations [N, D] of one update after the other.
    scale_on: raw activations [N, D] whose mean squared norm is taken for 1.

  Returns:
    Name → autoencoder of raw activations.
  """
  mesh = meshes.make(config.mesh)
  scale = estimate_scale(scale_on, jnp.ones(len(scale_on)))
  d = scale_on.shape[-1]
  stacks = [init_stack(stack, d, d, scale, scale) for stack in config.stacks]
  trained = groups(config, mesh, stacks, scale_on.dtype)
  states = [group.gather(stacks, mesh) for group in trained]
  for number in range(config.updates):
    x = next(draw)
    states = [
      update(config, mesh, group, state, x, jnp.int32(number))
      for group, state in zip(trained, states, strict=True)
    ]
  return {
    name: sae
    for group, state in zip(trained, states, strict=True)
    for stack, part in zip(group.stacks, group.split(state, mesh), strict=True)
    for name, sae in folded(stack, part).items()
  }


@functools.partial(jax.jit, static_argnums=(0, 1, 2), donate_argnums=3)
def update(
  config: TrainConfig,
  mesh: Mesh,
  group: Group,
  state: StackState,
  x: jax.Array,
  number: jax.Array,
) -> StackState:
  """One update of a group on raw activations x [N, D]."""
  sites = {site: x for site in config.sites}
  tokens = Tokens(sites, jnp.ones(len(x)), number)
  begin = Progress(state, jnp.zeros(state.idle.shape))
  return update_group(config, mesh, group, begin, tokens)[0].state
