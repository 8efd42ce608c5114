"""What training changes, and where it lies on the mesh between two buckets."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax.sharding import Mesh

from jaxsae import mesh as meshes
from jaxsae.lm import GemmaConfig
from jaxsae.sae import Sae
from jaxsae.sae import stack as stacks
from jaxsae.sae.architectures.architecture import Params
from jaxsae.train import optim
from jaxsae.train.config import TrainConfig
from jaxsae.train.sweep import Stack

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


@struct.dataclass
class StackState:
  """One stack of S autoencoders in training.

  Attributes:
    sae: the autoencoders, every array with a leading S.
    moments: Adam's.
    idle: int32 [S, F], tokens since each latent was last active.
    scale: [S], what the activations that are read are divided by.
    target_scale: [S], the same of those that are reconstructed.
  """

  sae: Params
  moments: optax.OptState
  idle: jax.Array
  scale: jax.Array
  target_scale: jax.Array


@struct.dataclass
class TrainState:
  """All of it.

  Attributes:
    step: int32, buckets trained on.
    key: from which each bucket's shuffle is derived.
    stacks: in the order of `config.stacks`.
  """

  step: jax.Array
  key: jax.Array
  stacks: tuple[StackState, ...]


def init(
  config: TrainConfig,
  gemma: GemmaConfig,
  scales: Sequence[tuple[jax.Array, jax.Array]],
) -> TrainState:
  """The state before the first bucket.

  Args:
    config: the run's.
    gemma: the language model's sizes.
    scales: of what each stack reads, and of what it reconstructs.
  """
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    key=jax.random.key(config.data.seed),
    stacks=tuple(
      init_stack(
        stack,
        stack.site.input.width(gemma),
        stack.site.output.width(gemma),
        *pair,
      )
      for stack, pair in zip(config.stacks, scales, strict=True)
    ),
  )


def init_stack(
  stack: Stack, d_in: int, d: int, scale: jax.Array, target_scale: jax.Array
) -> StackState:
  """A stack before its first update; scalars in, one for all its members."""
  sae = stacks.init(
    stack.architecture,
    [member.seed for member in stack.members],
    d_in,
    d,
    stack.width,
    stack.salt,
  )
  size = len(stack.members)
  every = lambda value: jnp.full(size, value, jnp.float32)
  return StackState(
    sae=sae,
    moments=optim.transformation(stack.sweep.optim).init(sae),
    idle=jnp.zeros((size, stack.width), jnp.int32),
    scale=every(scale),
    target_scale=every(target_scale),
  )


def folded(stack: Stack, state: StackState) -> dict[str, Sae]:
  """The name of each member, and the autoencoder of raw activations."""
  return {
    name: stack.architecture.fold(
      stacks.member(state.sae, i),
      state.scale[i],
      state.target_scale[i],
      target=member.target,
    )
    for i, (name, member) in enumerate(
      zip(stack.names, stack.members, strict=True)
    )
  }


def spread(
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


def sharding(abstract: TrainState, mesh: Mesh) -> TrainState:
  """How the state lies between buckets: latents over all devices.

  Wherever the stacks are trained, they rest alike, so a checkpoint does not
  know of placements, and any number of autoencoders can be spread.
  """
  layout = spread(abstract, mesh)
  return layout.replace(
    stacks=tuple(
      spread(stack, mesh, latents=resting(stack.idle.shape[-1], mesh))
      for stack in abstract.stacks
    )
  )


def resting(width: int, mesh: Mesh) -> Sequence[str]:
  """The axes over which so many latents can be spread; all, if possible."""
  for axes in (("model", "data"), ("model",)):
    if width % meshes.over(mesh, axes) == 0:
      return axes
  return ()


def check_rows(config: TrainConfig, mesh: Mesh) -> None:
  """Raises UserError unless the mesh divides the rows."""
  meshes.check_divides("bucket.rows", config.bucket.rows, mesh, "data")
