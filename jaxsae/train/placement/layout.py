"""Sharding of the training state, array by array."""

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar, Protocol, TypeVar

import jax
from jax.sharding import AbstractMesh, Mesh

from jaxsae import mesh as meshes
from jaxsae.train.config import TrainConfig

# The axes of each array of a stack, by name; other arrays are replicated.
AXES = {
  "w_enc": "SDF",
  "b_enc": "SF",
  "w_dec": "SFD",
  "b_dec": "SD",
  "threshold": "SF",
  "w_skip": "SDD",
  "b_gate": "SF",
  "b_mag": "SF",
  "r_mag": "SF",
  "tokens_since_fired": "SF",
  "fired": "SF",
  "dead": "SF",
  "scale": "S",
  "target_scale": "S",
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
  """
  over = {"S": tuple(saes) or None, "F": tuple(latents) or None, "D": None}

  def of(path: tuple, _: Any) -> jax.sharding.NamedSharding:
    axes = AXES.get(_name(path), "")
    return meshes.shard(mesh, *(over[axis] for axis in axes))

  return jax.tree_util.tree_map_with_path(of, tree)


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
  return dataclasses.replace(
    layout,
    stacks=tuple(
      shardings(
        stack, mesh, latents=resting_axes(stack.sae.w_enc.shape[-1], mesh)
      )
      for stack in abstract.stacks
    ),
  )


def resting_axes(width: int, mesh: Mesh | AbstractMesh) -> tuple[str, ...]:
  """Returns the mesh axes that shard `width` latents between buckets.

  As many axes as divide the width: both, `model` alone, or none.
  """
  for axes in (("model", "data"), ("model",)):
    if width % meshes.axes_size(mesh, axes) == 0:
      return axes
  return ()


def check_rows(config: TrainConfig, mesh: Mesh) -> None:
  """Raises UserError unless `data` divides the rows of a microbatch."""
  meshes.check_divides("bucket.rows", config.bucket.rows, mesh, "data")
