"""Selects a placement for each stack, and describes the choice in the log."""

import dataclasses
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jaxsae import chips
from jaxsae import mesh as meshes
from jaxsae.errors import UserError
from jaxsae.lm import Lm, Taps
from jaxsae.train.config.run import Schedule, TrainConfig
from jaxsae.train.config.sweep import Stack
from jaxsae.train.placement.cost_model import (
  UpdateTime,
  Work,
  resting_bytes,
  update_times,
)
from jaxsae.train.placement.layout import (
  StackArrays,
  bucket_columns,
  splits_numbers,
)
from jaxsae.train.placement.placements import Placement


@dataclasses.dataclass(frozen=True)
class PlacementChoice:
  """The placement of stacks that differ only in their site.

  Attributes:
    indices: the index of each stack in the state.
    time: prediction for the chosen placement, of all these stacks together.
    others: predictions for all other placements, fastest first.
  """

  indices: tuple[int, ...]
  time: UpdateTime
  others: tuple[UpdateTime, ...]

  @property
  def placement(self) -> Placement:
    return self.time.placement


def choose_placements(
  stacks: Sequence[Stack],
  schedule: Schedule,
  mesh: Mesh,
  states: Sequence[StackArrays],
  dtype: jnp.dtype,
  resident: float = 0.0,
) -> list[PlacementChoice]:
  """Chooses the placement that a sweep asks for, or else the fastest.

  It must fit beside what else is in memory: the state of stacks chosen before
  in their placements, and of all others at rest.

  Args:
    stacks: the stacks of a run.
    schedule: the updates of the run.
    mesh: the mesh of devices.
    states: the state of each stack; only its shapes are used.
    dtype: dtype of the bucket's activations.
    resident: bytes of a device's memory that are taken besides the stacks,
      from `resident_bytes`.

  Raises:
    UserError: the placement asked for is impossible, or all are.
  """
  kinds: dict[tuple, list[int]] = {}
  for i, stack in enumerate(stacks):
    kind = (stack.sweep, stack.width, _shapes(stack.taps))
    kinds.setdefault(kind, []).append(i)
  chip = chips.of(mesh.devices.flat[0].device_kind)
  works = [
    _work(stacks[some[0]], schedule, dtype, states[some[0]], len(some), mesh)
    for some in kinds.values()
  ]
  taken = resident + sum(resting_bytes(work, mesh) for work in works)
  made = []
  for indices, work in zip(kinds.values(), works, strict=True):
    taken -= resting_bytes(work, mesh)
    asked = stacks[indices[0]].sweep.placement
    found = update_times(work, mesh, chip, taken)
    chosen, others = _choose(found, asked)
    taken += chosen.kept
    made.append(PlacementChoice(tuple(indices), chosen, others))
  return made


def _shapes(taps: Taps) -> tuple[bool, tuple[bool, ...], tuple[bool, ...]]:
  """Returns what decides an autoencoder's shapes in any language model.

  That is whether it transcodes, and which of the sites that it reads and
  writes are `attn`, the only ones that are not as wide as the stream.
  """
  heads = lambda sites: tuple(site.where == "attn" for site in sites)
  return taps.transcodes, heads(taps.reads), heads(taps.writes)


def _work(
  stack: Stack,
  schedule: Schedule,
  dtype: jnp.dtype,
  state: StackArrays,
  sites: int,
  mesh: Mesh,
) -> Work:
  """Describes the updates of `sites` stacks that differ only in their site."""
  d_in, d = state.sae.w_enc.shape[1], state.sae.w_dec.shape[2]
  one = member_work(stack, schedule, dtype, d_in, d)
  return dataclasses.replace(
    one,
    sites=sites,
    members=len(stack.members),
    spread=splits_numbers(d_in, mesh),
  )


def member_work(
  stack: Stack, schedule: Schedule, dtype: jnp.dtype, d_in: int, d: int
) -> Work:
  """Describes the updates of one member of a stack, trained alone.

  Args:
    stack: the stack.
    schedule: the updates of the run.
    dtype: dtype of the bucket's activations.
    d_in: D_in, the width of what is read.
    d: D, the width of what is written.
  """
  columns = d_in + (d if stack.architecture.transcodes else 0)
  return Work(
    sites=1,
    members=1,
    d_in=d_in,
    d=d,
    width=stack.width,
    tokens=schedule.tokens,
    updates=schedule.per_bucket,
    token_bytes=columns * jnp.dtype(dtype).itemsize,
    moments=2 if stack.sweep.optim.b1 else 1,
    skip=stack.sweep.skip,
    summed=stack.architecture.summed_per_token(
      d, revives=stack.sweep.wakes_after is not None
    ),
    interleaved=bool(stack.sweep.prefixes),
  )


def bucket_dtype(config: TrainConfig, lm: Lm) -> jnp.dtype:
  """Returns the dtype of the bucket's activations."""
  return jnp.dtype(config.bucket.dtype or jax.tree.leaves(lm.params)[0].dtype)


def resident_bytes(config: TrainConfig, mesh: Mesh, lm: Lm) -> int:
  """Returns the bytes of a device that the LM and the bucket take."""
  return meshes.on_device(lm.params) + bucket_bytes(config, mesh, lm)


def bucket_bytes(config: TrainConfig, mesh: Mesh, lm: Lm) -> int:
  """Returns the bytes of a bucket's activations on each device."""
  tokens = config.bucket_tokens // mesh.shape["data"]
  widths = [site.width(lm.config) for site in config.sites]
  columns = sum(bucket_columns(width, mesh) for width in widths)
  return tokens * columns * bucket_dtype(config, lm).itemsize


def _choose(
  found: Sequence[UpdateTime], asked: str
) -> tuple[UpdateTime, tuple[UpdateTime, ...]]:
  if asked == "auto":
    chosen = found[0]
    if chosen.error:
      reasons = "; ".join(f"{one.placement} {one.error}" for one in found)
      raise UserError(
        f"No placement is possible: {reasons}. Use more devices, or fewer or"
        " narrower autoencoders."
      )
  else:
    chosen = next(one for one in found if one.placement.name == asked)
    if chosen.error:
      raise UserError(
        f"placement={asked} is impossible: it {chosen.error}; leave it at"
        " auto, or use another mesh."
      )
  return chosen, tuple(one for one in found if one is not chosen)


def log_lines(
  config: TrainConfig,
  mesh: Mesh,
  choices: Sequence[PlacementChoice],
  lm: Lm,
) -> Iterator[str]:
  """Yields the log's lines about placements and the bucket."""
  kind = mesh.devices.flat[0].device_kind
  chip = chips.of(kind)
  stand_in = "" if chip.name == kind else f", as {kind!r} is not known"
  yield f"predicted with the figures of {chip.name}{stand_in}:"
  for choice in choices:
    stacks = [config.stacks[i] for i in choice.indices]
    count = sum(len(stack.members) for stack in stacks)
    yield (
      f"  {count} autoencoders of {_named(stacks)}"
      f" {choice.placement}: {_seconds(choice.time)}"
      f"{_next(choice.others)}"
    )
  yield _bucket(config, mesh, lm)


def _named(stacks: Sequence[Stack]) -> str:
  if len(stacks) == 1:
    return str(stacks[0])
  return f"{len(stacks)} stacks, {stacks[0]} to {stacks[-1]},"


def _seconds(time: UpdateTime) -> str:
  ms = lambda seconds: f"{1e3 * seconds:.3g}"
  return (
    f"{ms(time.seconds)} ms an update (compute {ms(time.compute)},"
    f" memory {ms(time.memory)}, communication {ms(time.communication)})"
  )


def _next(others: Sequence[UpdateTime]) -> str:
  best = others[0]
  if best.error:
    return f"; {best.placement} {best.error}"
  return f"; runner-up {best.placement} {1e3 * best.seconds:.3g} ms"


def _bucket(config: TrainConfig, mesh: Mesh, lm: Lm) -> str:
  dtype = bucket_dtype(config, lm)
  columns = sum(site.width(lm.config) for site in config.sites)
  size = config.bucket_tokens * columns * dtype.itemsize
  here = bucket_bytes(config, mesh, lm)
  return (
    f"bucket: {size / 1e6:,.1f} MB of activations in {dtype.name},"
    f" {here / 1e6:,.1f} MB on each device"
  )
