"""What training changes, and where it lies on the mesh."""

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax.sharding import Mesh

from jaxsae import mesh as meshes
from jaxsae.lm import GemmaConfig
from jaxsae.sae import Sae
from jaxsae.sae import stack as stacks
from jaxsae.train import optim
from jaxsae.train.config import TrainConfig


@struct.dataclass
class StackState:
  """One stack of S autoencoders in training.

  Attributes:
    sae: the autoencoders, every array with a leading S.
    moments: Adam's.
    idle: int32 [S, F], tokens since each latent was last active.
    scale: what this site's activations are divided by.
  """

  sae: Sae
  moments: optax.OptState
  idle: jax.Array
  scale: jax.Array


@struct.dataclass
class TrainState:
  """All of it.

  Attributes:
    step: int32, buckets trained on.
    key: from which each bucket's shuffle is derived.
    stacks: in the order of `config.sae.stacks`.
  """

  step: jax.Array
  key: jax.Array
  stacks: tuple[StackState, ...]


def init(
  config: TrainConfig, gemma: GemmaConfig, scales: tuple[jax.Array, ...]
) -> TrainState:
  """The state before the first bucket; `scales` has one for each stack."""
  key = jax.random.key(config.sae.seed)
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    key=jax.random.fold_in(key, 0),
    stacks=tuple(
      _init_stack(config, gemma, jax.random.fold_in(key, 1 + i), i, scale)
      for i, scale in enumerate(scales)
    ),
  )


def _init_stack(config, gemma, key, index, scale):
  stack, size = config.sae.stacks[index], config.sae.size
  sae = stacks.init(
    key,
    size,
    stack.site.width(gemma),
    stack.width,
    config.sae.initial_threshold,
  )
  return StackState(
    sae=sae,
    moments=optim.transformation(config.optim).init(sae),
    idle=jnp.zeros((size, stack.width), jnp.int32),
    scale=jnp.asarray(scale, jnp.float32),
  )


def sharding(abstract: TrainState, mesh: Mesh) -> TrainState:
  """The sharding of every array: latents over `model`, the rest everywhere.

  Moments have the type of what they are moments of, so one rule serves both.
  """

  def of_sae(_):
    return Sae(
      w_enc=meshes.shard(mesh, None, None, "model"),
      b_enc=meshes.shard(mesh, None, "model"),
      w_dec=meshes.shard(mesh, None, "model", None),
      b_dec=meshes.shard(mesh),
      threshold=meshes.shard(mesh, None, "model"),
    )

  def of_any(node):
    return of_sae(node) if isinstance(node, Sae) else meshes.shard(mesh)

  tree = jax.tree.map(
    of_any, abstract, is_leaf=lambda node: isinstance(node, Sae)
  )
  by_latent = meshes.shard(mesh, None, "model")
  return tree.replace(
    stacks=tuple(stack.replace(idle=by_latent) for stack in tree.stacks)
  )


def check_widths(config: TrainConfig, mesh: Mesh) -> None:
  """Raises UserError unless the mesh divides widths and rows."""
  for width in config.sae.widths:
    meshes.check_divides("sae.widths", width, mesh, "model")
  meshes.check_divides("bucket.rows", config.bucket.rows, mesh, "data")
