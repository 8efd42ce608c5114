"""What training changes, and where it lies on the mesh between two buckets."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax.sharding import Mesh

from jaxsae.lm import GemmaConfig
from jaxsae.sae import Sae
from jaxsae.sae import stack as stacks
from jaxsae.sae.architectures.architecture import Params
from jaxsae.train import optim
from jaxsae.train.config.run import TrainConfig
from jaxsae.train.config.sweep import Stack
from jaxsae.train.placement.layout import sharding


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


def abstract_state(
  config: TrainConfig, gemma: GemmaConfig, mesh: Mesh
) -> TrainState:
  """Shapes and shardings of the state."""
  scales = [(1.0, 1.0) for _ in config.stacks]
  shapes = jax.eval_shape(lambda: init(config, gemma, scales))
  return jax.tree.map(_shaped, shapes, sharding(shapes, mesh))


def _shaped(x, layout):
  return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=layout)
