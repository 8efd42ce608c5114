"""Training on activations in memory, without a language model.

Shapes: N tokens, D site width.
"""

import dataclasses
import functools
from collections.abc import Iterable

import jax
import jax.numpy as jnp

from jaxsae import mesh as meshes
from jaxsae.errors import UserError
from jaxsae.lm import Site, Taps
from jaxsae.mesh import MeshConfig
from jaxsae.sae import Sae
from jaxsae.sae.normalisation import estimate_scale
from jaxsae.train import memory, outliers
from jaxsae.train import state as states
from jaxsae.train.config.run import Schedule, TrainConfig
from jaxsae.train.config.sweep import Stack, SweepConfig
from jaxsae.train.group import Group, place_stacks
from jaxsae.train.sources.arrays import ArraySource, read_array
from jaxsae.train.state import TrainState
from jaxsae.train.step import train_bucket
from jaxsae.train.update import Activations

# The site under which a sweep trains on arrays. Initial weights depend on the
# name of a site.
_SITE = Site("resid", 0)


def train_on(
  config: TrainConfig | SweepConfig,
  draw: Iterable[jax.Array],
  scale_on: jax.Array,
  updates: int | None = None,
) -> dict[str, Sae]:
  """Trains autoencoders on arrays, as a run would on a language model.

  Args:
    config: a sweep, whose sites are not used; or the configuration of a run
      whose stacks all read and write one site, of which only the sweeps, the
      number of updates, `mesh` and `not_finite` are used.
    draw: raw activations [N, D] of one update after the other.
    scale_on: raw activations [N, D] whose mean squared norm is scaled to 1.
    updates: the number of updates; needed for a sweep.

  Returns:
    Name → autoencoder of raw activations. Given a sweep, names have no site, as
    in 16384/l0_32.

  Raises:
    UserError: a sweep is given without `updates`, autoencoders read several
      sites, or `draw` ends too early.
  """
  if isinstance(config, TrainConfig):
    shards = meshes.make(config.mesh).shape["data"]
    wanted = updates or config.fitted(shards).updates
    return _train(config, draw, scale_on, wanted)
  if updates is None:
    raise UserError(
      "train_on() with a SweepConfig does not know how long to train; give"
      " updates=, the number of updates."
    )
  sweep = dataclasses.replace(config, sites=(Taps.of(_SITE),))
  run = TrainConfig(sae=sweep, mesh=MeshConfig(1, 1))
  saes = _train(run, draw, scale_on, updates)
  return {name.removeprefix(f"{_SITE}/"): sae for name, sae in saes.items()}


def _train(
  config: TrainConfig,
  draw: Iterable[jax.Array],
  scale_on: jax.Array,
  updates: int,
) -> dict[str, Sae]:
  source = ArraySource(draw, _sites(config.stacks), scale_on)
  scale = _scale(scale_on, config.max_norm)
  if not (jnp.isfinite(scale) and scale > 0):
    raise UserError(
      f"scale_on, of shape {list(scale_on.shape)}, has a mean norm of"
      f" {float(scale):g}; give activations that are finite and not all zero."
    )
  scales = dict.fromkeys(source.widths, scale)
  _check_memory(config, source)
  state = states.init(config.stacks, 0, source.widths, scales)
  groups = _place(config, state, source, updates)
  for _ in range(updates):
    state = update(groups, state, source.take().batch)
  return {
    name: sae
    for stack, trained in zip(config.stacks, state.stacks, strict=True)
    for name, sae in states.folded(stack, trained).items()
  }


def _scale(x: jax.Array, max_norm: float | None) -> jax.Array:
  """Estimates the scale of activations [N, D], without outliers."""
  every = Activations({_SITE: x[None]}, jnp.ones((1, len(x))))
  counted, _ = outliers.leave_out(every, max_norm)
  return estimate_scale(x, counted.mask[0])


def _check_memory(config: TrainConfig, source: ArraySource) -> None:
  """Raises UserError unless the device that makes the state can hold it."""
  scales = dict.fromkeys(source.widths, 1.0)
  state = jax.eval_shape(
    lambda: states.init(config.stacks, 0, source.widths, scales)
  )
  memory.check_room(
    {
      "the autoencoders and Adam's moments": memory.in_all(state),
      "gradients": memory.in_all([stack.sae for stack in state.stacks]),
    },
    meshes.make(MeshConfig(1, 1)),
    "use fewer or narrower autoencoders",
  )


def _place(
  config: TrainConfig, state: TrainState, source: ArraySource, updates: int
) -> tuple[Group, ...]:
  """Groups and places the stacks; a bucket has the tokens of one update."""
  schedule = Schedule(
    updates=updates,
    per_bucket=1,
    tokens=len(source.peek().batch),
    precision=config.precision,
    skip_not_finite=config.not_finite == "skip",
    max_norm=config.max_norm,
  )
  mesh = meshes.make(config.mesh)
  return place_stacks(config.stacks, schedule, mesh, state.stacks, source.dtype)


def _sites(stacks: Iterable[Stack]) -> tuple[Site, ...]:
  """Returns the site of every stack, each once; raises if one has several."""
  return tuple(dict.fromkeys(stack.taps.site for stack in stacks))


@functools.partial(jax.jit, static_argnums=0, donate_argnums=1)
def update(
  groups: tuple[Group, ...], state: TrainState, x: jax.Array
) -> TrainState:
  """Updates all groups once on raw activations x [N, D], in their order."""
  sites = _sites(stack for group in groups for stack in group.stacks)
  order = jnp.arange(len(x))[None, None]
  return train_bucket(groups, state, read_array(sites, x), order)[0]
