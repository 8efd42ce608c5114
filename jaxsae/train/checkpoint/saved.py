"""The state as it is named on disk, which renames in code must not change."""

from typing import Any

import jax
import optax
from flax import struct

from jaxsae.train.state import StackState, TrainState


class SavedStack(struct.PyTreeNode):
  """A `StackState` whose fields are named as in checkpoints.

  Attributes:
    sae: the autoencoders.
    moments: Adam's moments.
    idle: int32 [S, F], tokens since each latent was last active.
    scale: [S] or [S, L], the scale of the activations that are read.
    target_scale: that of the activations that are reconstructed, likewise.
  """

  sae: Any
  moments: optax.OptState
  idle: jax.Array
  scale: jax.Array
  target_scale: jax.Array


class SavedState(struct.PyTreeNode):
  """A `TrainState` whose fields are named as in checkpoints.

  Attributes:
    step: int32 [], the number of buckets trained on.
    key: the random key from which each bucket's permutation is derived.
    stacks: the state of each stack.
  """

  step: jax.Array
  key: jax.Array
  stacks: tuple[SavedStack, ...]


def to_saved(state: TrainState) -> SavedState:
  """Returns a state with the names that checkpoints have."""
  stacks = tuple(map(to_saved_stack, state.stacks))
  return SavedState(step=state.step, key=state.key, stacks=stacks)


def from_saved(state: SavedState) -> TrainState:
  """Returns a restored state with the names that the code has."""
  stacks = tuple(map(_from_saved, state.stacks))
  return TrainState(step=state.step, key=state.key, stacks=stacks)


def trained(stack: SavedStack) -> SavedStack:
  """Returns the autoencoders and their scales, without what trains them.

  The other fields are None.
  """
  return stack.replace(moments=None, idle=None)


def to_saved_stack(stack: StackState) -> SavedStack:
  """Returns a stack's state with the names that checkpoints have."""
  return SavedStack(
    sae=stack.sae,
    moments=stack.moments,
    idle=stack.tokens_since_fired,
    scale=stack.scale,
    target_scale=stack.target_scale,
  )


def _from_saved(stack: SavedStack) -> StackState:
  return StackState(
    sae=stack.sae,
    moments=stack.moments,
    tokens_since_fired=stack.idle,
    scale=stack.scale,
    target_scale=stack.target_scale,
  )
