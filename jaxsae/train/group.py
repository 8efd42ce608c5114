"""A group: the stacks that train as one array, in one placement.

Where autoencoders are sharded over devices, stacks that differ only in their
site train together, so that there are enough of them to shard. If their number
is still no multiple of the devices', some are trained twice and the copies are
dropped.

Shapes: S autoencoders of a group, N tokens, D site width, F latents.
"""

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxsae import mesh as meshes
from jaxsae.lm import Site
from jaxsae.lm.sites import join
from jaxsae.sae import Architecture, UpdateTokens, interleaving
from jaxsae.sae.interleaving import Interleaving
from jaxsae.sae.normalisation import per_column
from jaxsae.train.config.run import Schedule
from jaxsae.train.config.sweep import OptimConfig, Stack
from jaxsae.train.placement import interleave
from jaxsae.train.placement.layout import (
  StackArrays,
  resting_axes,
  shardings,
  spread,
)
from jaxsae.train.placement.placements import Placement
from jaxsae.train.placement.select import PlacementChoice, choose_placements
from jaxsae.train.state import StackState

Tree = TypeVar("Tree")


@dataclasses.dataclass(frozen=True)
class Group:
  """The stacks that train as one array: one sweep, width and site widths.

  Attributes:
    stacks: the configurations of the stacks.
    indices: the index of each stack in the state.
    placement: the mesh axes over which they are sharded while they train.
    size: S, the number of autoencoders, copies included.
    mesh: the mesh of devices.
    schedule: the updates of the run.
  """

  stacks: tuple[Stack, ...]
  indices: tuple[int, ...]
  placement: Placement
  size: int
  mesh: Mesh
  schedule: Schedule

  @property
  def architecture(self) -> Architecture:
    """The architecture, told in which order latents are."""
    own = self.stacks[0].architecture
    return dataclasses.replace(own, order=self._order)

  @property
  def _order(self) -> Interleaving:
    """The order of latents in the placement."""
    width = self.stacks[0].width
    own, mesh = self.stacks[0].architecture, self.mesh
    rest = width // meshes.axes_size(mesh, resting_axes(width, mesh))
    shards = meshes.axes_size(self._placed, self.placement.latents)
    return interleaving.choose(own.ends(width), shards, rest)

  @property
  def _placed(self) -> Mesh:
    """The mesh with the axes of the placement."""
    return self.placement.mesh(self.mesh)

  @property
  def optim(self) -> OptimConfig:
    return self.stacks[0].sweep.optim

  def per_member(self, attribute: str) -> np.ndarray:
    """Returns a number of every member, [S]; L0* is 0 if there is none."""
    values = [
      getattr(member, attribute) or 0
      for stack in self.stacks
      for member in stack.members
    ]
    return np.resize(np.array(values, np.float32), self.size)

  def gather(self, all_stacks: Sequence[StackState]) -> StackState:
    """Joins the stacks of the group, moved to their placement."""
    stacks = [all_stacks[i] for i in self.indices]
    joined = jax.tree.map(self._join, *stacks)
    return self.constrain(self._reorder(interleave.interleave, joined))

  def _reorder(self, change: Callable[..., Tree], tree: Tree) -> Tree:
    """Changes the order of latents, if the placement's is not their own."""
    if not self.architecture.prefixes or not self.placement.latents:
      return tree
    place, rest = self.placement, resting_axes(self.stacks[0].width, self.mesh)
    move = interleave.Move(rest, place.latents)
    if place.part > 1:  # from rest it would take more than one transfer
      tree = self.constrain(tree)
      move = interleave.Move(place.latents, place.latents, place.saes)
    return change(tree, self._placed, move, self._order)

  def _join(self, *arrays):
    if arrays[0].ndim == 0:  # Adam's count of updates, equal in all stacks
      return arrays[0]
    joined = jnp.concatenate(arrays)
    if len(joined) == self.size:
      return joined
    return joined[np.arange(self.size) % len(joined)]

  def constrain(self, tree: Tree) -> Tree:
    """Constrains arrays of the group to the sharding of their placement."""
    place = self.placement
    layout = shardings(tree, self._placed, place.saes, place.latents)
    return jax.lax.with_sharding_constraint(tree, layout)

  def split(self, tree: Tree) -> list[Tree]:
    """Splits arrays [S, …] into one tree for each stack, without the copies.

    They first move to where stacks are between buckets: there every device
    holds a part of each autoencoder, so taking some of these moves nothing.
    """
    tree = self._reorder(interleave.restore, tree)
    size = len(self.stacks[0].members)
    resting = resting_axes(self.stacks[0].width, self.mesh)
    layout = shardings(tree, self.mesh, latents=resting)
    tree = jax.lax.with_sharding_constraint(tree, layout)

    def part(i):
      some = slice(i * size, (i + 1) * size)
      return jax.tree.map(lambda x: x[some] if x.ndim else x, tree)

    return [part(i) for i in range(len(self.stacks))]

  def update_tokens(
    self,
    activations: Mapping[Site, jax.Array],
    mask: jax.Array,
    state: StackState,
  ) -> UpdateTokens:
    """Scales the tokens of one update: [N, D] shared by all, or [S, N, D].

    Args:
      activations: raw activations [N, D] of every site.
      mask: [N], 1 for tokens that count.
      state: the group's state, which has the scales.
    """
    layout = meshes.shard(self.mesh, self.placement.tokens or None)
    mask = jax.lax.with_sharding_constraint(mask, layout)
    x = self._scaled(activations, "reads", state.scale)
    if self.architecture.transcodes:
      y = self._scaled(activations, "writes", state.target_scale)
      return UpdateTokens(x, y, mask)
    return UpdateTokens(x, x, mask)

  def _scaled(
    self, activations: Mapping[Site, jax.Array], side: str, scale: jax.Array
  ) -> jax.Array:
    if len(self.stacks) == 1:
      layout = meshes.shard(self.mesh, self.placement.tokens or None, None)
      x = self._joined(activations, self.sites(side)[0])
      x = jax.lax.with_sharding_constraint(x, layout)
      return x.astype(jnp.float32) / per_column(scale, x.shape[-1])[:1]
    x = self._distribute(activations, side).astype(jnp.float32)
    return x / per_column(scale, x.shape[-1])[:, None, :]

  def _distribute(
    self, activations: Mapping[Site, jax.Array], side: str
  ) -> jax.Array:
    """Gathers raw activations [S, N, D], each only where it is needed.

    Tokens are sharded over `data`, and D over `model`. First the devices of
    `model` swap shards: each gets the whole D of the sites that its members
    read. Then tokens are gathered over `data`, once for each site however many
    members read it.
    """
    saes = self.placement.saes
    data = meshes.batch_axes(self._placed)
    constrain = lambda x, *spec: jax.lax.with_sharding_constraint(
      x, meshes.shard(self._placed, *spec, None)
    )
    members = self.sites(side)
    near, _ = sites_of_shards(members, self.mesh.shape["model"])
    shards = meshes.axes_size(self._placed, saes)
    sites, choice = sites_of_shards(members, shards)
    x = [self._joined(activations, own) for own in near.ravel()]
    # Stacked where they are: nothing moves before it is wanted elsewhere.
    x = jnp.swapaxes(spread(jnp.stack(x, axis=1), self.mesh), 0, 1)
    x = constrain(x, "model", data)
    if sites.shape != near.shape:
      x = _take(x, near.shape, places_of(sites, near))
      x = constrain(x, "model", data)
    # In two steps, one collective each: first every site's tokens move to the
    # devices that need them, spread over these; then each gathers them all.
    x = constrain(x, saes, tuple(axis for axis in data if axis not in saes))
    x = constrain(x, saes, None)
    if sites.shape == choice.shape:
      return x
    return constrain(_take(x, sites.shape, choice), saes, None)

  def _joined(
    self, activations: Mapping[Site, jax.Array], sites: Sequence[Site]
  ) -> jax.Array:
    """Joins the activations of sites, [N, D]."""
    if len(sites) > 1:  # shards of D would no longer be shards of the whole
      activations = {
        site: meshes.constrain(activations[site], self.mesh, "data")
        for site in sites
      }
    return join(activations, sites)

  def sites(self, side: str) -> list[tuple[Site, ...]]:
    """Returns the sites each member `"reads"`, or those it `"writes"`."""
    sites = [
      getattr(stack.taps, side) for stack in self.stacks for _ in stack.members
    ]
    return list(itertools.islice(itertools.cycle(sites), self.size))

  @property
  def token_axes(self) -> UpdateTokens:
    """The axes over which vmap maps tokens: none if all share the tokens."""
    own = None if len(self.stacks) == 1 else 0
    # Axes stand where arrays do otherwise.
    return UpdateTokens(own, own, None)  # pyright: ignore[reportArgumentType]


def sites_of_shards(
  sites: Sequence[tuple[Site, ...]], shards: int
) -> tuple[np.ndarray, np.ndarray]:
  """Finds the sites that each shard needs when members are split in order.

  Args:
    sites: the sites of every member.
    shards: number of shards, which divides the members.

  Returns:
    The sites of each shard, repeated to fill up [shards, most], a tuple each;
    and for each member the index of its own among these
    [shards, members per shard].
  """
  split = [x.tolist() for x in np.split(np.arange(len(sites)), shards)]
  needed = [list(dict.fromkeys(sites[i] for i in some)) for some in split]
  most = max(map(len, needed))
  filled = np.empty((shards, most), object)
  for shard, some in enumerate(needed):
    for place, of_member in zip(range(most), itertools.cycle(some)):
      filled[shard, place] = of_member  # one by one: NumPy unpacks tuples
  indices = [
    [some.index(sites[i]) for i in own]
    for some, own in zip(needed, split, strict=True)
  ]
  return filled, np.array(indices)


def places_of(sites: np.ndarray, near: np.ndarray) -> np.ndarray:
  """Finds the sites of each shard among those of the shards around it.

  Args:
    sites: the sites of each shard [shards, most].
    near: those of fewer shards [fewer, more], each of which is divided into
      equally many of the others.

  Returns:
    The indices [fewer, shards / fewer · most].
  """
  split = sites.reshape(len(near), -1)
  return np.array(
    [
      [own.index(site) for site in some]
      for own, some in zip(near.tolist(), split.tolist(), strict=True)
    ]
  )


def _take(x: jax.Array, shape: tuple[int, ...], index: np.ndarray) -> jax.Array:
  """Takes arrays by their index in each shard: x [shards · some, N, D]."""
  x = x.reshape(*shape, *x.shape[1:])
  x = jnp.take_along_axis(x, index[..., None, None], axis=1)
  return x.reshape(-1, *x.shape[2:])


def place_stacks(
  stacks: Sequence[Stack],
  schedule: Schedule,
  mesh: Mesh,
  states: Sequence[StackArrays],
  dtype: jnp.dtype,
) -> tuple[Group, ...]:
  """Decides where stacks train, and groups them accordingly.

  Takes the arguments of `choose_placements`, and raises what it raises.
  """
  choices = choose_placements(stacks, schedule, mesh, states, dtype)
  return make_groups(stacks, schedule, mesh, choices)


def make_groups(
  stacks: Sequence[Stack],
  schedule: Schedule,
  mesh: Mesh,
  choices: Sequence[PlacementChoice],
) -> tuple[Group, ...]:
  """Groups the stacks of a run as `choose_placements` decided."""
  made = []
  for choice in choices:
    together = [choice.indices]
    if not choice.placement.saes:
      together = [(i,) for i in choice.indices]
    for indices in together:
      some = tuple(stacks[i] for i in indices)
      size = _padded(len(some) * len(some[0].members), choice.placement, mesh)
      made.append(Group(some, indices, choice.placement, size, mesh, schedule))
  return tuple(made)


def _padded(size: int, placement: Placement, mesh: Mesh) -> int:
  """Returns the least number of autoencoders, S, that shards divide."""
  shards = meshes.axes_size(placement.mesh(mesh), placement.saes)
  return -(-size // shards) * shards
