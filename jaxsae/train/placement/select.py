"""Which placement each stack gets, and what is said of it."""

import dataclasses
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jaxsae import chips
from jaxsae.errors import UserError
from jaxsae.lm import Lm, Site
from jaxsae.train.config.run import TrainConfig
from jaxsae.train.placement.cost_model import Price, Work, prices
from jaxsae.train.placement.placements import Placement


@dataclasses.dataclass(frozen=True)
class Choice:
  """For stacks that differ in their site alone.

  Attributes:
    indices: where each is in the state.
    price: of the placement they get, for all of them.
    others: of all other placements.
  """

  indices: tuple[int, ...]
  price: Price
  others: tuple[Price, ...]

  @property
  def placement(self) -> Placement:
    return self.price.placement


def choices(
  config: TrainConfig,
  mesh: Mesh,
  states: Sequence,
  dtype: jnp.dtype,
) -> list[Choice]:
  """What the sweep asks for, or else the cheapest.

  Args:
    config: the run's.
    mesh: of the devices.
    states: of all stacks; only their shapes are looked at.
    dtype: in which activations are kept.

  Raises:
    UserError: what the sweep asks for can not be, or nothing can.
  """
  kinds: dict[tuple, list[int]] = {}
  for i, stack in enumerate(config.stacks):
    kind = (stack.sweep, stack.width, _kind(stack.site))
    kinds.setdefault(kind, []).append(i)
  chip = chips.of(mesh.devices.flat[0].device_kind)
  made = []
  for indices in kinds.values():
    work = _work(config, dtype, states[indices[0]], indices)
    asked = config.stacks[indices[0]].sweep.placement
    chosen, others = _choose(prices(work, mesh, chip), asked)
    made.append(Choice(tuple(indices), chosen, others))
  return made


def _kind(site: Site) -> str:
  """Sites of one kind have one width, whatever the language model."""
  return site.where if site.where in ("attn", "transcoder") else "stream"


def _work(config, dtype, stack, indices) -> Work:
  one = config.stacks[indices[0]]
  d_in, d = stack.sae.w_enc.shape[1], stack.sae.w_dec.shape[2]
  columns = d_in + (d if one.architecture.transcodes else 0)
  return Work(
    sites=len(indices),
    members=len(one.members),
    d_in=d_in,
    d=d,
    width=one.width,
    tokens=config.bucket.update_tokens,
    updates=config.updates_per_bucket,
    row=columns * jnp.dtype(dtype).itemsize,
    moments=2 if one.sweep.optim.b1 else 1,
  )


def row_dtype(config: TrainConfig, lm: Lm) -> jnp.dtype:
  """In which the bucket's activations are kept."""
  return jnp.dtype(config.bucket.dtype or jax.tree.leaves(lm.params)[0].dtype)


def _choose(found: list[Price], asked: str) -> tuple[Price, tuple[Price, ...]]:
  if asked == "auto":
    chosen = found[0]
    if chosen.refused:
      reasons = "; ".join(f"{p.placement.name} {p.refused}" for p in found)
      raise UserError(
        f"No placement can be: {reasons}. Use more devices, or fewer or"
        " narrower autoencoders."
      )
  else:
    (chosen,) = (p for p in found if p.placement.name == asked)
    if chosen.refused:
      raise UserError(
        f"placement={asked} can not be, as it {chosen.refused}; leave it at"
        " auto, or use another mesh."
      )
  return chosen, tuple(p for p in found if p is not chosen)


def lines(config: TrainConfig, mesh: Mesh, state, lm: Lm) -> Iterator[str]:
  """What the log says of placements and of the bucket; `state` may be abstract.

  Raises:
    UserError: as `choices`.
  """
  kind = mesh.devices.flat[0].device_kind
  chip = chips.of(kind)
  stand_in = "" if chip.name == kind else f", for {kind!r} is not known"
  yield f"predicted with the figures of {chip.name}{stand_in}:"
  dtype = row_dtype(config, lm)
  for choice in choices(config, mesh, state.stacks, dtype):
    stacks = [config.stacks[i] for i in choice.indices]
    count = sum(len(stack.members) for stack in stacks)
    yield (
      f"  {count} autoencoders of {_named(stacks)}"
      f" {choice.placement.name}: {_costs(choice.price)}{_next(choice.others)}"
    )
  yield _bucket(config, mesh, lm)


def _named(stacks) -> str:
  if len(stacks) == 1:
    return str(stacks[0])
  return f"{len(stacks)} stacks, {stacks[0]} to {stacks[-1]},"


def _costs(price: Price) -> str:
  ms = lambda seconds: f"{1e3 * seconds:.3g}"
  return (
    f"{ms(price.seconds)} ms an update (compute {ms(price.compute)},"
    f" memory {ms(price.memory)}, communication {ms(price.communication)})"
  )


def _next(others) -> str:
  best = others[0]
  if best.refused:
    return f"; {best.placement.name} {best.refused}"
  return f"; next {best.placement.name} {1e3 * best.seconds:.3g} ms"


def _bucket(config, mesh, lm) -> str:
  dtype = row_dtype(config, lm)
  columns = sum(site.width(lm.config) for site in config.sites)
  size = config.bucket_tokens * columns * dtype.itemsize
  here = size / mesh.shape["data"]
  return (
    f"bucket: {size / 1e6:,.1f} MB of activations in {dtype.name},"
    f" {here / 1e6:,.1f} MB on each device"
  )
