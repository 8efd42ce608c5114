"""The state that training changes, and its sharding between two buckets."""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax.sharding import Mesh
from jax.typing import ArrayLike

from jaxsae.brief import fields
from jaxsae.lm import LmConfig, Site
from jaxsae.sae import Sae
from jaxsae.sae import stack as sae_stacks
from jaxsae.sae.architectures.architecture import Params
from jaxsae.train import optim
from jaxsae.train.config.run import TrainConfig
from jaxsae.train.config.sweep import Stack
from jaxsae.train.placement.layout import sharding


class StackState(struct.PyTreeNode):
  """One stack of S autoencoders in training.

  Attributes:
    sae: the autoencoders; every array has a leading S.
    moments: Adam's moments.
    tokens_since_fired: int32 [S, F], tokens since each latent was last active.
    scale: [S], the scale of the activations that are read; [S, L] if L sites
      are read.
    target_scale: that of the activations that are reconstructed, likewise.
  """

  sae: Params
  moments: optax.OptState
  tokens_since_fired: jax.Array
  scale: jax.Array
  target_scale: jax.Array

  __repr__ = fields


class TrainState(struct.PyTreeNode):
  """The state of a whole run.

  Attributes:
    step: int32 [], the number of buckets trained on.
    key: the random key from which each bucket's permutation is derived.
    stacks: the state of each stack, in the order of `config.stacks`.
  """

  step: jax.Array
  key: jax.Array
  stacks: tuple[StackState, ...]

  __repr__ = fields


def init(
  stacks: Sequence[Stack],
  seed: int,
  widths: Mapping[Site, int],
  scales: Mapping[Site, ArrayLike],
) -> TrainState:
  """Makes the state before the first bucket.

  Args:
    stacks: the stacks of the run.
    seed: the seed of the permutations of buckets.
    widths: D of every site.
    scales: the scale of every site.
  """
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    key=jax.random.key(seed),
    stacks=tuple(
      init_stack(
        stack,
        sum(widths[site] for site in stack.taps.reads),
        sum(widths[site] for site in stack.taps.writes),
        _joined_scales(scales, stack.taps.reads),
        _joined_scales(scales, stack.taps.writes),
      )
      for stack in stacks
    ),
  )


def _joined_scales(
  scales: Mapping[Site, ArrayLike], sites: Sequence[Site]
) -> ArrayLike:
  """Returns the scale of one site, [], or those of several, [L]."""
  if len(sites) == 1:
    return scales[sites[0]]
  return jnp.stack([jnp.asarray(scales[site]) for site in sites])


def init_stack(
  stack: Stack, d_in: int, d: int, scale: ArrayLike, target_scale: ArrayLike
) -> StackState:
  """Makes a stack before its first update.

  Args:
    stack: the configuration of the stack.
    d_in: D_in, the width of what is read.
    d: D, the width of what is written.
    scale: the scale of the activations that are read, for all members; [L] if
      L sites are read.
    target_scale: the scale of those that are reconstructed, likewise.
  """
  sae = sae_stacks.init(
    stack.architecture,
    [member.seed for member in stack.members],
    d_in,
    d,
    stack.width,
    stack.salt,
  )
  size = len(stack.members)
  every = lambda value: jnp.full((size, *jnp.shape(value)), value, jnp.float32)
  return StackState(
    sae=sae,
    moments=optim.transformation(stack.sweep.optim).init(sae),
    tokens_since_fired=jnp.zeros((size, stack.width), jnp.int32),
    scale=every(scale),
    target_scale=every(target_scale),
  )


def abstract_stack(stack: Stack, d_in: int, d: int) -> StackState:
  """Returns the shapes of a stack that reads a width d_in and writes d."""
  ones = lambda sites: jnp.ones([len(sites)] if len(sites) > 1 else [])
  scale, target_scale = ones(stack.taps.reads), ones(stack.taps.writes)
  return jax.eval_shape(lambda: init_stack(stack, d_in, d, scale, target_scale))


def folded(stack: Stack, state: StackState) -> dict[str, Sae]:
  """Returns each member by name, as an autoencoder of raw activations."""
  return {
    name: fold_member(
      stack,
      i,
      sae_stacks.member(state.sae, i),
      state.scale[i],
      state.target_scale[i],
    )
    for i, name in enumerate(stack.names)
  }


def fold_member(
  stack: Stack,
  index: int,
  sae: Params,
  scale: ArrayLike,
  target_scale: ArrayLike,
) -> Sae:
  """Returns one member as an autoencoder of raw activations.

  Products are of full precision, for what is folded is published.

  Args:
    stack: the configuration of its stack.
    index: its index in the stack.
    sae: its arrays in training.
    scale: the scale of the activations that are read.
    target_scale: that of the activations that are reconstructed.
  """
  with jax.default_matmul_precision("highest"):
    return stack.architecture.fold(
      sae,
      jnp.asarray(scale),
      jnp.asarray(target_scale),
      target=stack.members[index].target,
    )


def abstract_state(
  config: TrainConfig, gemma: LmConfig, mesh: Mesh
) -> TrainState:
  """Returns the shapes and shardings of a run's state."""
  widths = {site: site.width(gemma) for site in config.sites}
  scales = dict.fromkeys(config.sites, 1.0)
  shapes = jax.eval_shape(
    lambda: init(config.stacks, config.data.seed, widths, scales)
  )
  return jax.tree.map(_shaped, shapes, sharding(shapes, mesh))


def _shaped(x, layout):
  return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=layout)
