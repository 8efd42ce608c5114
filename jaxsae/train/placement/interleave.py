"""Moves latents of stacks into the order in which their placement trains them.

Between buckets latents lie in their own order, whatever the mesh. Where there
are prefixes and a placement splits latents, they are interleaved on the way to
the placement (`sae/interleaving.py`), and put back on the way to rest. Either
takes one all-to-all along each mesh axis.

Shapes: S autoencoders, F latents, H shards.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable
from typing import TypeVar

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jaxsae import mesh as meshes
from jaxsae.sae.interleaving import Interleaving
from jaxsae.train.placement.layout import map_axes
from jaxsae.train.placement.placements import Axes

Tree = TypeVar("Tree")


@dataclasses.dataclass(frozen=True)
class Move:
  """The mesh axes over which stacks are sharded while latents are dealt out.

  Attributes:
    before: those over which latents are sharded in their own order.
    after: those over which they are sharded when they are interleaved.
    saes: those over which autoencoders are sharded before and after.
  """

  before: Axes
  after: Axes
  saes: Axes = ()


def interleave(tree: Tree, mesh: Mesh, move: Move, order: Interleaving) -> Tree:
  """Brings latents from their own order into that of their shards.

  Args:
    tree: arrays of stacks, as they lie between buckets.
    mesh: the mesh of devices.
    move: where the stacks are sharded before and after.
    order: their order on as many shards as these axes have.
  """
  return _map_latents(lambda x: _Latents(x, mesh, move, order).dealt(), tree)


def restore(tree: Tree, mesh: Mesh, move: Move, order: Interleaving) -> Tree:
  """Undoes `interleave`; takes the same arguments."""
  return _map_latents(
    lambda x: _Latents(x, mesh, move, order).collected(), tree
  )


def _map_latents(
  function: Callable[[jax.Array], jax.Array], tree: Tree
) -> Tree:
  """Maps each array that has latents, with these as its first axis."""

  def change(x: jax.Array, axes: str) -> jax.Array:
    if "F" not in axes:
      return x
    axis = axes.index("F")
    return jnp.moveaxis(function(jnp.moveaxis(x, axis, 0)), 0, axis)

  return map_axes(change, tree)


@dataclasses.dataclass(frozen=True)
class _Latents:
  """An array [F, S, …], its latents in blocks.

  F is split into one axis for each mesh axis at rest, rows, one for each mesh
  axis of shards, and the latents of a block. A mesh axis moves from its axis at
  rest to that of shards, or back.
  """

  x: jax.Array
  mesh: Mesh
  move: Move
  order: Interleaving

  def dealt(self) -> jax.Array:
    x = self.x.reshape(*self._sizes, *self.x.shape[1:])
    for count in range(len(self.move.after) + 1):
      x = self._constrain(x, self.move.after[:count])
    places = range(len(self._at_rest) + 1)
    return self._moved(x, places, len(self.move.after)).reshape(self.x.shape)

  def collected(self) -> jax.Array:
    last = len(self._at_rest) + 1
    sizes = self._sizes[last:-1] + self._sizes[:last] + self._sizes[-1:]
    x = self.x.reshape(*sizes, *self.x.shape[1:])
    x = self._moved(x, range(len(self.move.after)), last)
    for count in reversed(range(len(self.move.after) + 1)):
      x = self._constrain(x, self.move.after[:count])
    return x.reshape(self.x.shape)

  @property
  def _at_rest(self) -> Axes:
    """The mesh axes at rest, as far as blocks let them be apart."""
    row = self.order.shards * self.order.block
    devices = meshes.axes_size(self.mesh, self.move.before)
    apart = len(self.x) % (row * devices) == 0
    return self.move.before if apart else ()

  @property
  def _sizes(self) -> tuple[int, ...]:
    rest = self._along(self._at_rest)
    shards = self._along(self.move.after)
    rows = len(self.x) // math.prod((*rest, *shards, self.order.block))
    return (*rest, rows, *shards, self.order.block)

  def _along(self, axes: Axes) -> tuple[int, ...]:
    return tuple(self.mesh.shape[axis] for axis in axes)

  def _constrain(self, x: jax.Array, moved: Axes) -> jax.Array:
    """Constrains the view: these mesh axes are where shards are."""
    of = lambda axes, there: [axis if there(axis) else None for axis in axes]
    rest = of(self._at_rest, lambda axis: axis not in moved)
    shards = of(self.move.after, lambda axis: axis in moved)
    saes = self.move.saes or None
    layout = meshes.shard(self.mesh, *rest, None, *shards, None, saes)
    return jax.lax.with_sharding_constraint(x, layout)

  def _moved(self, x: jax.Array, first: Iterable[int], by: int) -> jax.Array:
    """Moves the first axes behind the next ones, before the block's."""
    first = tuple(first)
    return jnp.moveaxis(x, first, [place + by for place in first])
