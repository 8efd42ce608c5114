"""Training on activations in memory, without a language model.

Shapes: N tokens, D site width.
"""

import functools
from collections.abc import Iterable, Sequence

import jax
import jax.numpy as jnp

from jaxsae import mesh as meshes
from jaxsae.errors import UserError
from jaxsae.lm import Site
from jaxsae.mesh import MeshConfig
from jaxsae.sae import Sae
from jaxsae.sae.normalisation import estimate_scale
from jaxsae.train import state as states
from jaxsae.train.config.run import Schedule, TrainConfig
from jaxsae.train.config.sweep import Stack, SweepConfig
from jaxsae.train.group import Group, make_groups
from jaxsae.train.placement.select import choose_placements
from jaxsae.train.sources.arrays import ArraySource, read_array
from jaxsae.train.state import TrainState
from jaxsae.train.step import train_bucket


def train_on(
  config: TrainConfig | SweepConfig,
  draw: Iterable[jax.Array],
  scale_on: jax.Array,
  updates: int | None = None,
) -> dict[str, Sae]:
  """Trains autoencoders on arrays, as a run would on a language model.

  Args:
    config: a sweep, or the configuration of a run whose stacks all read one
      site, of which only the sweeps, the number of updates, `mesh` and
      `not_finite` are used.
    draw: raw activations [N, D] of one update after the other.
    scale_on: raw activations [N, D] whose mean squared norm is scaled to 1.
    updates: the number of updates; needed for a sweep.

  Returns:
    Name → autoencoder of raw activations.

  Raises:
    UserError: a sweep is given without `updates`.
  """
  stacks, schedule, mesh = _settings(config, len(scale_on), updates)
  source = ArraySource(draw, _sites(stacks), scale_on)
  scales = dict.fromkeys(
    source.widths, estimate_scale(scale_on, jnp.ones(len(scale_on)))
  )
  state = states.init(stacks, 0, source.widths, scales)
  choices = choose_placements(
    stacks, schedule, mesh, state.stacks, source.dtype
  )
  groups = make_groups(stacks, schedule, mesh, choices)
  for _ in range(schedule.updates):
    state = update(groups, state, source.take().batch)
  return {
    name: sae
    for stack, trained in zip(stacks, state.stacks, strict=True)
    for name, sae in states.folded(stack, trained).items()
  }


def _settings(
  config: TrainConfig | SweepConfig, tokens: int, updates: int | None
) -> tuple[Sequence[Stack], Schedule, jax.sharding.Mesh]:
  """Returns the stacks, the schedule of one update a bucket, and the mesh."""
  if isinstance(config, TrainConfig):
    schedule = Schedule(
      updates=updates or config.updates,
      per_bucket=1,
      tokens=config.bucket.update_tokens,
      skip_not_finite=config.not_finite == "skip",
    )
    return config.stacks, schedule, meshes.make(config.mesh)
  if updates is None:
    raise UserError(
      "train_on() with a SweepConfig does not know how long to train; give"
      " updates=, the number of updates."
    )
  schedule = Schedule(updates, per_bucket=1, tokens=tokens)
  return config.stacks, schedule, meshes.make(MeshConfig(1, 1))


def _sites(stacks: Iterable[Stack]) -> tuple[Site, ...]:
  sites = (site for stack in stacks for site in stack.taps.sites)
  return tuple(dict.fromkeys(sites))


@functools.partial(jax.jit, static_argnums=0, donate_argnums=1)
def update(
  groups: tuple[Group, ...], state: TrainState, x: jax.Array
) -> TrainState:
  """Updates all groups once on raw activations x [N, D], in their order."""
  sites = _sites(stack for group in groups for stack in group.stacks)
  order = jnp.arange(len(x))[None, None]
  return train_bucket(groups, state, read_array(sites, x), order)[0]
