"""The state as it is named on disk, which renames in code must not change."""

from typing import Any

import jax
import optax
from flax import struct

from jaxsae.train.state import StackState, TrainState


@struct.dataclass
class SavedStack:
  """A `StackState` whose fields are named as in checkpoints.

  Attributes:
    sae: the autoencoders.
    moments: Adam's moments.
    idle: int32 [S, F], tokens since each latent was last active.
    scale: [S], the scale of the activations that are read.
    target_scale: [S], the scale of the activations that are reconstructed.
  """

  sae: Any
  moments: optax.OptState
  idle: jax.Array
  scale: jax.Array
  target_scale: jax.Array


def to_saved(state: TrainState) -> TrainState:
  """Returns a state with the names that checkpoints have."""
  return state.replace(stacks=tuple(map(_to_saved, state.stacks)))


def from_saved(state: TrainState) -> TrainState:
  """Returns a restored state with the names that the code has."""
  return state.replace(stacks=tuple(map(_from_saved, state.stacks)))


def _to_saved(stack: StackState) -> SavedStack:
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
