"""A group: the stacks that are trained as one array, in one place.

Where autoencoders are spread over devices, stacks that differ in their site
alone are trained together, so that there are enough of them to spread. If they
still do not come out even, some are trained twice and the copies forgotten.

Shapes: S autoencoders of a group, N tokens, D site width, F latents.
"""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxsae import mesh as meshes
from jaxsae.lm import Site
from jaxsae.sae import Architecture, UpdateTokens
from jaxsae.train.config.run import TrainConfig
from jaxsae.train.config.sweep import OptimConfig, Stack
from jaxsae.train.placement.layout import resting_axes, shardings
from jaxsae.train.placement.placements import Placement
from jaxsae.train.placement.select import choose_placements
from jaxsae.train.state import StackState


@dataclasses.dataclass(frozen=True)
class Group:
  """Stacks of one sweep, width and pair of site widths.

  Attributes:
    stacks: their configurations.
    indices: where each is in the state.
    placement: where they are trained.
    size: S, with copies.
  """

  stacks: tuple[Stack, ...]
  indices: tuple[int, ...]
  placement: Placement
  size: int

  @property
  def architecture(self) -> Architecture:
    return self.stacks[0].architecture

  @property
  def optim(self) -> OptimConfig:
    return self.stacks[0].sweep.optim

  def each(self, attribute: str) -> np.ndarray:
    """A number of every member, [S]; L0* is 0 where there is none."""
    values = [
      getattr(member, attribute) or 0
      for stack in self.stacks
      for member in stack.members
    ]
    return np.resize(np.array(values, np.float32), self.size)

  def gather(self, all_stacks: Sequence[StackState], mesh: Mesh) -> StackState:
    """The stacks as one, where they are trained."""
    stacks = [all_stacks[i] for i in self.indices]
    return self.keep(jax.tree.map(self._join, *stacks), mesh)

  def _join(self, *arrays):
    if arrays[0].ndim == 0:  # counts of updates, which are those of all
      return arrays[0]
    joined = jnp.concatenate(arrays)
    if len(joined) == self.size:
      return joined
    return joined[np.arange(self.size) % len(joined)]

  def keep(self, tree, mesh: Mesh):
    """Arrays of the group, held to their place."""
    place = self.placement
    layout = shardings(tree, mesh, place.saes, place.latents)
    return jax.lax.with_sharding_constraint(tree, layout)

  def split(self, tree, mesh: Mesh) -> list:
    """A tree of arrays [S, …] → one for each stack, without the copies.

    It goes to rest first: there each device has some of every autoencoder, and
    to take some of these moves nothing.
    """
    size = len(self.stacks[0].members)
    rest = resting_axes(self.stacks[0].width, mesh)
    layout = shardings(tree, mesh, latents=rest)
    tree = jax.lax.with_sharding_constraint(tree, layout)

    def part(i):
      some = slice(i * size, (i + 1) * size)
      return jax.tree.map(lambda x: x[some] if x.ndim else x, tree)

    return [part(i) for i in range(len(self.stacks))]

  def rows(
    self,
    taken: Mapping[Site, jax.Array],
    mask: jax.Array,
    group: StackState,
    mesh: Mesh,
  ) -> UpdateTokens:
    """The tokens of one update, scaled: [N, D] for all, or [S, N, D].

    Args:
      taken: raw activations [N, D] of every site.
      mask: [N].
      group: whose scales to use.
      mesh: of the devices.
    """
    layout = meshes.shard(mesh, self.placement.tokens or None)
    mask = jax.lax.with_sharding_constraint(mask, layout)
    x = self._scaled(taken, "input", group.scale, mesh)
    if self.architecture.transcodes:
      return UpdateTokens(
        x, self._scaled(taken, "output", group.target_scale, mesh), mask
      )
    return UpdateTokens(x, x, mask)

  def _scaled(self, taken, end: str, scale, mesh):
    if len(self.stacks) == 1:
      layout = meshes.shard(mesh, self.placement.tokens or None, None)
      x = taken[self.sites(end)[0]]
      x = jax.lax.with_sharding_constraint(x, layout)
      return x.astype(jnp.float32) / scale[0]
    x = self._dealt(taken, end, mesh)
    return x.astype(jnp.float32) / scale[:, None, None]

  def _dealt(self, taken, end: str, mesh):
    """Raw [S, N, D], where only those devices have a row that need it.

    Rows lie over `data`, and all devices of `model` have the same. So each
    first leaves out what is for others of `model`, and the rest goes round
    `data`, once for each site however many members read it.
    """
    places = meshes.axes_size(mesh, self.placement.saes)
    sites, seats = deal(self.sites(end), places)
    hold = lambda x, *spec: jax.lax.with_sharding_constraint(
      x, meshes.shard(mesh, *spec, None)
    )
    x = hold(jnp.stack([taken[site] for site in sites.ravel()]), None, "data")
    x = hold(hold(x, "model", "data"), self.placement.saes, None)
    if sites.shape == seats.shape:
      return x
    x = x.reshape(*sites.shape, *x.shape[1:])
    x = jnp.take_along_axis(x, seats[..., None, None], axis=1)
    x = x.reshape(self.size, *x.shape[2:])
    return hold(x, self.placement.saes, None)

  def sites(self, end: str) -> list[Site]:
    """What each member reads (`"input"`) or writes (`"output"`)."""
    sites = [
      getattr(stack.site, end) for stack in self.stacks for _ in stack.members
    ]
    return list(itertools.islice(itertools.cycle(sites), self.size))

  @property
  def axes(self) -> UpdateTokens:
    """Over which axis of its rows vmap goes: none where all read the same."""
    own = None if len(self.stacks) == 1 else 0
    return UpdateTokens(own, own, None)


def deal(sites: Sequence[Site], count: int) -> tuple[np.ndarray, np.ndarray]:
  """What each of `count` places needs when members are dealt in order.

  Args:
    sites: of every member.
    count: which divides them.

  Returns:
    The sites of each place, each once and then any to fill up [count, most],
    and of each member which of these is its own [count, members a place].
  """
  dealt = [list(some) for some in np.split(np.arange(len(sites)), count)]
  needed = [list(dict.fromkeys(sites[i] for i in some)) for some in dealt]
  most = max(map(len, needed))
  chosen = np.empty((count, most), object)
  for place, some in enumerate(needed):
    chosen[place] = list(itertools.islice(itertools.cycle(some), most))
  seats = [
    [some.index(sites[i]) for i in own]
    for some, own in zip(needed, dealt, strict=True)
  ]
  return chosen, np.array(seats)


def groups(
  config: TrainConfig,
  mesh: Mesh,
  states: Sequence[StackState],
  dtype: jnp.dtype,
) -> tuple[Group, ...]:
  """All stacks of a run, grouped as `choose_placements` has them."""
  made = []
  for choice in choose_placements(config, mesh, states, dtype):
    together = [choice.indices]
    if not choice.placement.saes:
      together = [(i,) for i in choice.indices]
    made += [_group(config, mesh, choice.placement, some) for some in together]
  return tuple(made)


def _group(config, mesh, placement, indices) -> Group:
  stacks = tuple(config.stacks[i] for i in indices)
  size = len(stacks) * len(stacks[0].members)
  over = meshes.axes_size(mesh, placement.saes)
  return Group(stacks, indices, placement, -(-size // over) * over)
