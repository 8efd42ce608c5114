"""One run on some slices: everything a person decides by."""

import dataclasses

from jax.sharding import Mesh

from jaxsae.errors import UserError
from jaxsae.lm import GemmaConfig
from jaxsae.lm.weights import read_sizes
from jaxsae.plan import communication, memory, parts
from jaxsae.plan.communication import BytesSent
from jaxsae.plan.compilation import Compilation, compile_run
from jaxsae.plan.memory import MemoryBreakdown
from jaxsae.plan.prices import ChipPrice
from jaxsae.plan.roofline import Roofline
from jaxsae.plan.topology import Slices, make_mesh
from jaxsae.train.config.run import TrainConfig
from jaxsae.train.placement.layout import check_rows
from jaxsae.train.placement.select import (
  PlacementChoice,
  bucket_dtype,
  choose_placements,
)
from jaxsae.train.step import abstract_arguments


@dataclasses.dataclass(frozen=True)
class Plan:
  """A prediction; nothing in it was measured on an accelerator.

  Attributes:
    config: the run's.
    slices: what it is to run on.
    shape: of the mesh, data and model.
    memory: of a device's memory.
    roofline: of one step.
    compilation: of the step; None where it was not compiled.
    sent: what the compiled step sends; None where there is none.
    price: of the chips; None where it is not known.
    checkpoint: bytes of one.
    export: bytes of all autoencoders in Gemma Scope's format.
    error: why no placement of the autoencoders can be; empty where one can.
  """

  config: TrainConfig
  slices: Slices
  shape: tuple[int, int]
  memory: MemoryBreakdown
  roofline: Roofline
  compilation: Compilation | None = None
  sent: BytesSent | None = None
  price: ChipPrice | None = None
  checkpoint: int = 0
  export: int = 0
  error: str = ""

  @property
  def capacity(self) -> float:
    """Bytes of a device that a program may have."""
    return self.slices.kind.hbm

  @property
  def needed(self) -> int | None:
    """Bytes of a device that the run takes; None where nobody knows."""
    return self.memory.total

  @property
  def headroom(self) -> float | None:
    """Bytes that are left, or lacking where it is below zero."""
    return None if self.needed is None else self.capacity - self.needed

  @property
  def fits(self) -> bool | None:
    """None where only the compiler could say, and was not asked."""
    if self.error or self.memory.known > self.capacity:
      return False
    if self.compilation is None:
      return None
    if self.compilation.text is None or self.needed is None:
      return False
    return self.needed <= self.capacity

  @property
  def predicted_sent(self) -> float:
    """Bytes that a device sends in a step, without asking the compiler."""
    made = self.roofline.parts
    return sum(part.sent for part in made if part.where != parts.COMPILED)

  @property
  def step_seconds(self) -> float:
    """If nothing within a part waits for anything else."""
    return self.roofline.seconds

  @property
  def step_seconds_without_overlap(self) -> float:
    """If nothing overlaps."""
    return self.roofline.seconds_without_overlap

  @property
  def tokens_per_second(self) -> float:
    return self.config.bucket_tokens / self.step_seconds

  @property
  def share_of_peak(self) -> float:
    """Of the chips' arithmetic."""
    peak = self.slices.kind.chip.flops
    return self.roofline.flops / peak / self.step_seconds

  @property
  def hours(self) -> float:
    """Of training alone."""
    return self.config.steps * self.step_seconds / 3600

  @property
  def hours_without_overlap(self) -> float:
    return self.config.steps * self.step_seconds_without_overlap / 3600

  @property
  def chip_hours(self) -> float:
    return self.hours * self.slices.chips

  @property
  def chip_hours_without_overlap(self) -> float:
    return self.hours_without_overlap * self.slices.chips

  @property
  def money(self) -> float | None:
    """On demand."""
    return self.price and self.chip_hours * self.price.on_demand

  @property
  def money_without_overlap(self) -> float | None:
    return self.price and self.chip_hours_without_overlap * self.price.on_demand

  @property
  def money_spot(self) -> float | None:
    if self.price is None or self.price.spot is None:
      return None
    return self.chip_hours * self.price.spot


def make(
  config: TrainConfig,
  slices: Slices,
  prices: dict[str, ChipPrice],
  compiles: bool = True,
) -> Plan:
  """Plans a run.

  Args:
    config: the run's.
    slices: what it is to run on.
    prices: of chips, by kind.
    compiles: whether to ask the compiler, which takes a minute or so.

  Raises:
    UserError: the run can not be on such a mesh, whatever its memory.
  """
  gemma, mesh = read_sizes(config.lm), make_mesh(config.mesh, slices)
  made = on_mesh(config, gemma, mesh, slices, compiles)
  return dataclasses.replace(made, price=prices.get(slices.kind.name))


def on_mesh(
  config: TrainConfig,
  gemma: GemmaConfig,
  mesh: Mesh,
  slices: Slices,
  compiles: bool = True,
) -> Plan:
  """Plans a run on a mesh of these slices, without its price."""
  for site in config.sites:
    site.check(gemma)
  check_rows(config, mesh)
  arguments = abstract_arguments(config, gemma, mesh)
  arguments[1].check_length(config.data.context)
  placed, error = _placed(config, mesh, arguments)
  compiled = (
    compile_run(config, mesh, arguments) if compiles and placed else None
  )
  sent = None
  if compiled is not None and compiled.text is not None:
    sent = communication.bytes_sent(config, mesh, compiled.text)
  breakdown = memory.breakdown(config, gemma, mesh, arguments, compiled)
  return Plan(
    config=config,
    slices=slices,
    shape=tuple(mesh.shape.values()),
    memory=breakdown,
    roofline=parts.of_step(
      config, gemma, mesh, slices, placed, breakdown.bucket, sent
    ),
    compilation=compiled,
    sent=sent,
    checkpoint=memory.in_all(arguments[0]),
    export=sum(memory.in_all(stack.sae) for stack in arguments[0].stacks),
    error=error,
  )


def _placed(config, mesh, arguments) -> tuple[list[PlacementChoice], str]:
  """Where stacks go, or why they can go nowhere."""
  state, lm, _ = arguments
  try:
    dtype = bucket_dtype(config, lm)
    return choose_placements(config, mesh, state.stacks, dtype), ""
  except UserError as error:
    return [], str(error)
