"""Starts a new run from autoencoders in any published format."""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from jaxsae import pod
from jaxsae.errors import UserError, first_few
from jaxsae.formats import Published, card, format_of
from jaxsae.formats.gemma_scope import from_published
from jaxsae.formats.load import autoencoders_at
from jaxsae.lm import Lm, LmConfig
from jaxsae.sae import Sae
from jaxsae.sae.architectures.architecture import Params
from jaxsae.train.config.run import TrainConfig
from jaxsae.train.config.sweep import Stack
from jaxsae.train.state import StackState, TrainState

T = TypeVar("T")


def check(config: TrainConfig, sizes: LmConfig) -> None:
  """Raises UserError unless each stack can start from one autoencoder.

  Args:
    config: the new run's configuration, whose `start_from` is a published
      autoencoder, or a folder of them.
    sizes: the language model's sizes.
  """
  tried = lambda _, stack, read: _unfold(stack, read.sae)
  _of_each_stack(config, sizes, tried)


def take(config: TrainConfig, lm: Lm, state: TrainState) -> TrainState:
  """Returns a fresh state whose stacks start from published autoencoders.

  All members of a stack start alike. Scales, moments, key and counters stay as
  they are.

  Args:
    config: the new run's configuration.
    lm: the language model, whose gain some transcoders leave out.
    state: the fresh state.

  Raises:
    UserError: as in `check`.
  """

  # Before `on_all`, for processes wait for one another here.
  scales = pod.to_host([(x.scale, x.target_scale) for x in state.stacks])

  def begun(index: int, stack: Stack, read: Published) -> StackState:
    sae = read.sae
    if read.before_gain and stack.taps.kind == "transcoder":
      sae = from_published(sae, stack.taps, lm)
    made = _unfold(stack, sae, *(scale[0] for scale in scales[index]))
    mine = state.stacks[index]
    return mine.replace(sae=jax.tree.map(_every_member, mine.sae, made))

  stacks = pod.on_all(lambda: _of_each_stack(config, lm.config, begun))
  pod.print_on_leader(f"starts from {config.start_from}")
  return state.replace(stacks=tuple(stacks))


def _of_each_stack(
  config: TrainConfig,
  sizes: LmConfig,
  act: Callable[[int, Stack, Published], T],
) -> list[T]:
  """Calls `act` with each stack and the autoencoder that it starts from.

  Each autoencoder is read once, and gone before the next one is.
  """
  assert config.start_from is not None  # or there is nothing to take
  made: list[list[T]] = [[] for _ in config.stacks]
  there: list[str] = []
  for path in autoencoders_at(config.start_from):
    read = _read(path)
    there.append(_describe(read))
    for index, stack in enumerate(config.stacks):
      if _fits(read, stack, sizes):
        made[index].append(act(index, stack, read))
    del read  # before the next one
  for stack, some in zip(config.stacks, made, strict=True):
    if len(some) != 1:
      raise UserError(
        f"start_from={config.start_from} has {len(some) or 'no'}"
        f" autoencoder{'s' * (len(some) > 1)} for this run's {stack}, which"
        f" needs one; it has {first_few(there, separator='; ')}."
      )
  return [one for (one,) in made]


def _read(path: epath.Path) -> Published:
  return card.complete(path, format_of(path).read(path))


def _fits(read: Published, stack: Stack, sizes: LmConfig) -> bool:
  """Returns whether an autoencoder has a stack's sites, as far as it tells."""
  taps, w_enc, w_dec = stack.taps, read.sae.w_enc, read.sae.w_dec
  wanted = (taps.d_in(sizes), stack.width, taps.d(sizes))
  return read.taps in (None, taps) and wanted == (*w_enc.shape, w_dec.shape[1])


def _describe(read: Published) -> str:
  (d_in, width), d = read.sae.w_enc.shape, read.sae.w_dec.shape[1]
  sites = "unknown sites" if read.taps is None else str(read.taps)
  return f"width {width} at {sites}, which reads {d_in} and writes {d} numbers"


def _unfold(
  stack: Stack, sae: Sae, scale: Any = 1.0, target_scale: Any = 1.0
) -> Params:
  """Returns the arrays in training that fold to an autoencoder."""
  if sae.w_skip is not None and not stack.sweep.skip:
    raise UserError(
      f"The autoencoder for {stack} has an affine skip; train with"
      " --sae.skip=true."
    )
  if sae.w_skip is None and stack.sweep.skip:
    no_skip = jnp.zeros((sae.w_enc.shape[0], sae.w_dec.shape[1]))
    sae = sae.replace(w_skip=no_skip)
  with jax.default_matmul_precision("highest"):
    return stack.architecture.unfold(sae, scale, target_scale)


def _every_member(like: jax.Array, value: jax.Array) -> jax.Array:
  """Places the array of one autoencoder as that of a stack, alike for all."""
  whole = np.broadcast_to(np.asarray(value, like.dtype), like.shape)
  return jax.make_array_from_callback(
    like.shape, like.sharding, whole.__getitem__
  )
