"""Sharding of the training state, array by array."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Protocol, TypeVar

import jax
from jax.sharding import AbstractMesh, Mesh

from jaxsae import mesh as meshes
from jaxsae.sae import array_axes
from jaxsae.train.config import TrainConfig

# The axes of the arrays that the trainer keeps beside an autoencoder's own.
# Those of an autoencoder are declared by its `Architecture`.
AXES = {
  "tokens_since_fired": "SF",
  "fired": "SF",
  "dead": "SF",
  "scale": "SL",
  "target_scale": "SL",
  "coefficient": "S",
  "target": "S",
  "tokens": "S",
  "loss": "S",
  "squared_error": "S",
}


class StackArrays(Protocol):
  """A `StackState`, as far as placements read it."""

  @property
  def sae(self) -> Any: ...  # the arrays of an architecture


class StateArrays(Protocol):
  """A `TrainState`, as far as placements read it."""

  __dataclass_fields__: ClassVar[dict[str, Any]]

  @property
  def stacks(self) -> Sequence[StackArrays]: ...


Tree = TypeVar("Tree")
Stacked = TypeVar("Stacked", bound=StackArrays)
State = TypeVar("State", bound=StateArrays)


def shardings(
  tree: Tree,
  mesh: Mesh,
  saes: Sequence[str] = (),
  latents: Sequence[str] = (),
) -> Tree:
  """Returns the sharding of every array in a tree, found by the array's name.

  Args:
    tree: arrays, or their shapes, in any structure.
    mesh: the mesh of devices.
    saes: mesh axes over which autoencoders are sharded.
    latents: mesh axes over which latents are sharded.

  Raises:
    ValueError: nobody declares the axes of an array, or it has others. Scalars
      and arrays [S] need no declaration; undeclared, they are replicated.
  """
  over = {"S": tuple(saes) or None, "F": tuple(latents) or None}

  def of(_, axes: str) -> jax.sharding.NamedSharding:
    return meshes.shard(mesh, *(over.get(axis) for axis in axes))

  return map_axes(of, tree)


def map_axes(function: Callable[[Any, str], Any], tree: Tree) -> Tree:
  """Maps each array and its axes, one letter each, as in "SDF".

  Raises:
    ValueError: as in `shardings`.
  """
  table = _declared_axes()

  def of(path: tuple, array: Any) -> Any:
    axes = table.get(_name(path), "")
    if axes == AXES["scale"] and array.ndim == 1:
      axes = "S"  # one site is read or written
    _check_axes(path, array, axes)
    return function(array, axes)

  return jax.tree_util.tree_map_with_path(of, tree)


def _declared_axes() -> dict[str, str]:
  """Returns the axes of every array that is declared, by the array's name."""
  declared = array_axes()
  taken = sorted(AXES.keys() & declared.keys())
  if taken:
    raise ValueError(
      f"an architecture declares an array named {taken[0]!r}, which is the name"
      " of an array of the trainer's; rename it."
    )
  return AXES | {name: f"S{axes}" for name, axes in declared.items()}


def _check_axes(path: tuple, array: Any, axes: str) -> None:
  """Raises ValueError unless an array has the axes that are declared."""
  if array.ndim == len(axes) or (not axes and array.ndim == 1):
    return
  said = f"has its axes declared as {axes}" if axes else "has no declared axes"
  raise ValueError(
    f"the array {_name(path)!r}, at {jax.tree_util.keystr(path)}, of shape"
    f" {array.shape}, {said}; mend `axes` of its Architecture."
  )


def _name(path: tuple) -> str:
  """Returns the name of the last attribute on the path to an array."""
  names = [key.name for key in path if hasattr(key, "name")]
  return names[-1] if names else ""


def sharding(abstract: State, mesh: Mesh) -> State:
  """Returns the state's sharding between buckets: latents over all devices.

  It is the same for every placement, so checkpoints do not depend on
  placements, and any number of autoencoders can be sharded.

  Args:
    abstract: the `TrainState`, as shapes or as arrays.
    mesh: the mesh of devices.
  """
  layout = shardings(abstract, mesh)
  stacks = tuple(_resting(stack, mesh) for stack in abstract.stacks)
  return dataclasses.replace(layout, stacks=stacks)


def member_sharding(stack: Stacked, mesh: Mesh) -> Stacked:
  """Returns the sharding of one member of a stack between buckets.

  Args:
    stack: the stack's arrays [S, …], or their shapes.
    mesh: the mesh of devices.
  """
  drop = lambda layout: meshes.shard(mesh, *layout.spec[1:])
  return jax.tree.map(drop, _resting(stack, mesh))


def _resting(stack: Stacked, mesh: Mesh) -> Stacked:
  width = stack.sae.w_enc.shape[-1]
  return shardings(stack, mesh, latents=resting_axes(width, mesh))


def resting_axes(width: int, mesh: Mesh | AbstractMesh) -> tuple[str, ...]:
  """Returns the mesh axes that shard `width` latents between buckets.

  As many axes as divide the width: all, `model` alone, or none.
  """
  for axes in (("model", *meshes.batch_axes(mesh)), ("model",)):
    if width % meshes.axes_size(mesh, axes) == 0:
      return axes
  return ()


def spread(tree: Tree, mesh: Mesh) -> Tree:
  """Spreads activations [B, …, D] of a bucket over all devices.

  Rows are sharded over `data`, and D over `model` where `splits_numbers`.
  """

  def hold(x: jax.Array) -> jax.Array:
    last = "model" if splits_numbers(x.shape[-1], mesh) else None
    layout = meshes.shard(mesh, "data", *[None] * (x.ndim - 2), last)
    return jax.lax.with_sharding_constraint(x, layout)

  return jax.tree.map(hold, tree)


def bucket_columns(width: int, mesh: Mesh) -> int:
  """Returns how many of D numbers of a token a device holds in the bucket."""
  model = mesh.shape["model"]
  return width // model if splits_numbers(width, mesh) else width


def splits_numbers(width: int, mesh: Mesh) -> bool:
  """Returns whether the D numbers of a token are spread over `model`.

  They are if `model` divides them, but not where devices are threads of one
  CPU: these share one memory, and XLA ends the process if threads begin the
  transfers of several sites in different orders.
  """
  if mesh.devices.flat[0].platform == "cpu":
    return False
  return width % mesh.shape["model"] == 0


def check_rows(config: TrainConfig, mesh: Mesh) -> None:
  """Raises UserError unless `data` divides the rows of a microbatch."""
  meshes.check_divides("bucket.rows", config.rows, mesh, "data")
