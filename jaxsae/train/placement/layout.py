"""How the state of training lies on the mesh, array by array."""

from collections.abc import Sequence

import jax
from jax.sharding import Mesh

from jaxsae import mesh as meshes
from jaxsae.train.config import TrainConfig

# The axes of the arrays of a stack in training, by name; others lie everywhere.
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
  """The sharding of every array of a state, by its name.

  Args:
    tree: arrays, or their shapes, below any structure.
    mesh: of the devices.
    saes: mesh axes over which autoencoders are spread.
    latents: mesh axes over which latents are spread.
  """
  over = {"S": tuple(saes) or None, "F": tuple(latents) or None, "D": None}

  def of(path, _):
    axes = AXES.get(_name(path), "")
    return meshes.shard(mesh, *(over[axis] for axis in axes))

  return jax.tree_util.tree_map_with_path(of, tree)


def _name(path) -> str:
  """The last attribute on the way to an array."""
  names = [key.name for key in path if hasattr(key, "name")]
  return names[-1] if names else ""


def sharding(abstract, mesh: Mesh):
  """How the state lies between buckets: latents over all devices.

  Wherever the stacks are trained, they rest alike, so a checkpoint does not
  know of placements, and any number of autoencoders can be spread.
  """
  layout = shardings(abstract, mesh)
  return layout.replace(
    stacks=tuple(
      shardings(stack, mesh, latents=resting_axes(stack.idle.shape[-1], mesh))
      for stack in abstract.stacks
    )
  )


def resting_axes(width: int, mesh: Mesh) -> Sequence[str]:
  """The axes over which so many latents can be spread; all, if possible."""
  for axes in (("model", "data"), ("model",)):
    if width % meshes.over(mesh, axes) == 0:
      return axes
  return ()


def check_rows(config: TrainConfig, mesh: Mesh) -> None:
  """Raises UserError unless the mesh divides the rows."""
  meshes.check_divides("bucket.rows", config.bucket.rows, mesh, "data")
