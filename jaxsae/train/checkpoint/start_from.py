"""Starts a new run from autoencoders: of another run, or published ones."""

from jax.sharding import Mesh

from jaxsae import pod
from jaxsae.errors import UserError
from jaxsae.files import given_path
from jaxsae.formats.load import autoencoders_at
from jaxsae.lm import Lm
from jaxsae.lm.weights import read_sizes
from jaxsae.train.checkpoint import from_published
from jaxsae.train.checkpoint.checkpoints import Checkpoints
from jaxsae.train.config.run import TrainConfig
from jaxsae.train.config.sweep import Stack
from jaxsae.train.process import workdir
from jaxsae.train.state import StackState, TrainState, abstract_state


def check(config: TrainConfig) -> None:
  """Raises UserError if a new run cannot start from `start_from`.

  A run that has begun no longer needs the other run.
  """
  begun = (given_path(config.workdir) / "config.json").exists()
  if config.start_from is None or begun:
    return
  if _is_published(config.start_from):
    from_published.check(config, read_sizes(config.lm))
    return
  if not workdir.is_claimed(given_path(config.start_from)):
    raise UserError(
      f"start_from={config.start_from} is not a run, and has no autoencoder"
      " that load_sae takes; give the folder of either."
    )
  _partners(config, workdir.read_config(given_path(config.start_from)))
  if _checkpoints(config.start_from).latest is None:
    raise UserError(
      f"start_from={config.start_from} has no checkpoint yet; train it first."
    )


def take(
  config: TrainConfig, mesh: Mesh, lm: Lm, state: TrainState
) -> TrainState:
  """Returns a fresh state with the autoencoders of another run.

  Autoencoders and scales come from its newest intact checkpoint; moments, key
  and counters stay as they are. So do scales if the autoencoders are published,
  because these read raw activations.

  Args:
    config: the new run's configuration, which names the other run.
    mesh: the mesh of devices.
    lm: the language model.
    state: the fresh state.

  Raises:
    UserError: the stacks do not match, or no checkpoint is intact.
  """
  assert config.start_from is not None  # or there is nothing to take
  if _is_published(config.start_from):
    return from_published.take(config, lm, state)
  other = workdir.read_config(given_path(config.start_from))
  partners = _partners(config, other)
  theirs, _ = _checkpoints(config.start_from).restore(
    abstract_state(other, lm.config, mesh)
  )
  stacks = tuple(
    _with_weights(mine, theirs.stacks[i])
    for mine, i in zip(state.stacks, partners, strict=True)
  )
  pod.print_on_leader(
    f"starts from {config.start_from} at step {int(theirs.step)}"
  )
  return state.replace(stacks=stacks)


def _is_published(path: str) -> bool:
  """Returns whether autoencoders are at or below a path that is no run."""
  try:
    return bool(autoencoders_at(path))
  except UserError:
    return False


def _checkpoints(run: str) -> Checkpoints:
  return Checkpoints(given_path(run) / "checkpoints", keep=None)


def _with_weights(mine: StackState, theirs: StackState) -> StackState:
  return mine.replace(
    sae=theirs.sae, scale=theirs.scale, target_scale=theirs.target_scale
  )


def _partners(config: TrainConfig, other: TrainConfig) -> list[int]:
  """For each stack, the index of the other run's stack that it starts from.

  Stacks of the same kind are matched in order.
  """
  left = dict(enumerate(map(_kind, other.stacks)))
  found = []
  for stack in config.stacks:
    index = next((i for i, kind in left.items() if kind == _kind(stack)), None)
    if index is None:
      raise UserError(
        f"start_from={config.start_from} has no {_describe(stack)} for this"
        f" run's {stack}; it has {'; '.join(map(_describe, other.stacks))}."
      )
    del left[index]
    found.append(index)
  return found


def _kind(stack: Stack) -> tuple:
  """The settings that two stacks must share to have the same arrays."""
  sweep = stack.sweep
  return (
    stack.taps,
    sweep.architecture,
    sweep.skip,
    stack.width,
    len(stack.members),
  )


def _describe(stack: Stack) -> str:
  skip = " with skip" if stack.sweep.skip else ""
  return (
    f"{len(stack.members)} {stack.sweep.architecture}{skip} of width"
    f" {stack.width} at {stack.taps}"
  )
