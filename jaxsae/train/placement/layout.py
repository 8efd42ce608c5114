"""The sharding of the training state, array by array."""

from collections.abc import Sequence

import jax
from jax.sharding import Mesh

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
  "idle": "SF",
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


def shardings(
  tree, mesh: Mesh, saes: Sequence[str] = (), latents: Sequence[str] = ()
):
  """The sharding of every array of a state, found by the array's name.

  Args:
    tree: arrays, or their shapes, below any structure.
    mesh: of the devices.
    saes: mesh axes over which autoencoders are sharded.
    latents: mesh axes over which latents are sharded.
  """
  over = {"S": tuple(saes) or None, "F": tuple(latents) or None, "D": None}

  def of(path, _):
    axes = AXES.get(_name(path), "")
    return meshes.shard(mesh, *(over[axis] for axis in axes))

  return jax.tree_util.tree_map_with_path(of, tree)


def _name(path) -> str:
  """The name of the last attribute on the path to an array."""
  names = [key.name for key in path if hasattr(key, "name")]
  return names[-1] if names else ""


def sharding(abstract, mesh: Mesh):
  """The sharding of the state between buckets: latents over all devices.

  It is the same for every placement, so checkpoints do not depend on
  placements, and any number of autoencoders can be sharded.
  """
  layout = shardings(abstract, mesh)
  return layout.replace(
    stacks=tuple(
      shardings(stack, mesh, latents=resting_axes(stack.idle.shape[-1], mesh))
      for stack in abstract.stacks
    )
  )


def resting_axes(width: int, mesh: Mesh) -> Sequence[str]:
  """The mesh axes over which `width` latents are sharded between buckets.

  As many axes as divide the width: both, `model` alone, or none.
  """
  for axes in (("model", "data"), ("model",)):
    if width % meshes.axes_size(mesh, axes) == 0:
      return axes
  return ()


def check_rows(config: TrainConfig, mesh: Mesh) -> None:
  """Raises UserError unless `data` divides the rows of a microbatch."""
  meshes.check_divides("bucket.rows", config.bucket.rows, mesh, "data")
