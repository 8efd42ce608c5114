"""The plan of one run on some slices: memory, seconds and money."""

import dataclasses
from collections.abc import Mapping

from jax.sharding import Mesh

from jaxsae.errors import UserError
from jaxsae.lm import GemmaConfig, Lm
from jaxsae.lm.weights import read_sizes
from jaxsae.plan import communication, evaluation, memory, parts, stages
from jaxsae.plan.communication import BytesSent
from jaxsae.plan.compilation import Compilation, compile_run
from jaxsae.plan.evaluation import EvaluationMemory, compile_evaluation
from jaxsae.plan.memory import MemoryBreakdown
from jaxsae.plan.prices import ChipPrice, PriceTable, StoragePrice
from jaxsae.plan.roofline import Part, Roofline
from jaxsae.plan.stages import Stage
from jaxsae.plan.topology import Slices, make_mesh
from jaxsae.token_batch import TokenBatch
from jaxsae.train.config.run import TrainConfig
from jaxsae.train.group import make_groups
from jaxsae.train.placement.layout import check_rows
from jaxsae.train.placement.select import (
  PlacementChoice,
  bucket_dtype,
  choose_placements,
  resident_bytes,
)
from jaxsae.train.sources.text import abstract_arguments
from jaxsae.train.state import TrainState


@dataclasses.dataclass(frozen=True)
class Plan:
  """A prediction; nothing in it was measured on an accelerator.

  Attributes:
    config: the run's config.
    slices: the slices that it is planned for.
    shape: the mesh's sizes along data and model.
    memory: what a device's memory is used for.
    roofline: the roofline of one step.
    compilation: the compiled step; None if it was not compiled.
    sent: bytes that the compiled step sends; None if there is no such step.
    price: the price of the chips; None if it is not known.
    checkpoint: bytes of a checkpoint.
    export: bytes of all autoencoders in Gemma Scope's format.
    evaluation: the memory of evaluating the run; None if it was not compiled.
    evaluating: the work of evaluating the run.
    stages: what the run takes besides training.
    storage: the price of a bucket; None if it is not known.
    error: why no placement of the autoencoders is possible; empty if one is.
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
  evaluation: EvaluationMemory | None = None
  evaluating: Part | None = None
  stages: tuple[Stage, ...] = ()
  storage: StoragePrice | None = None
  error: str = ""

  @property
  def capacity(self) -> float:
    """Bytes of a device's memory that a program can use."""
    return self.slices.kind.hbm

  @property
  def needed(self) -> int | None:
    """Bytes of a device's memory that the run needs; None if not known.

    Where what is known without compiling is too much already, these bytes.
    """
    if self.memory.total is None and self.memory.known > self.capacity:
      return self.memory.known
    return self.memory.total

  @property
  def headroom(self) -> float | None:
    """Bytes of a device's memory that are left; negative if too few."""
    return None if self.needed is None else self.capacity - self.needed

  @property
  def fits(self) -> bool | None:
    """True if the run fits; None if only the compiler could say."""
    if self.error or self.memory.known > self.capacity:
      return False
    if self.compilation is None:
      return None
    if self.compilation.text is None or self.needed is None:
      return False
    return self.needed <= self.capacity

  @property
  def evaluation_fits(self) -> bool | None:
    """True if evaluating the run fits; None if it was not compiled."""
    if self.evaluation is None:
      return None
    if not self.evaluation.compiled or self.evaluation.needed is None:
      return False
    return self.evaluation.needed <= self.capacity

  @property
  def predicted_sent(self) -> float:
    """Bytes that a device sends in a step, by the cost model alone."""
    made = self.roofline.parts
    return sum(part.sent for part in made if part.where != parts.COMPILED)

  @property
  def step_seconds(self) -> float:
    """Seconds of a step if everything within a part overlaps."""
    return self.roofline.seconds

  @property
  def step_seconds_without_overlap(self) -> float:
    """Seconds of a step if nothing overlaps."""
    return self.roofline.seconds_without_overlap

  @property
  def tokens_per_second(self) -> float:
    """Tokens trained on per second if everything within a part overlaps."""
    return self.config.bucket_tokens / self.step_seconds

  @property
  def share_of_peak(self) -> float:
    """Fraction of the chips' peak FLOPs per second."""
    peak = self.slices.kind.chip.flops
    return self.roofline.flops / peak / self.step_seconds

  @property
  def hours(self) -> float:
    """Hours of training, without startup, checkpoints and evaluation."""
    return self.config.steps * self.step_seconds / 3600

  @property
  def hours_without_overlap(self) -> float:
    """Hours of training if nothing overlaps."""
    return self.config.steps * self.step_seconds_without_overlap / 3600

  @property
  def chip_hours(self) -> float:
    """Hours of training times the number of chips."""
    return self.hours * self.slices.chips

  @property
  def chip_hours_without_overlap(self) -> float:
    """Chip-hours of training if nothing overlaps."""
    return self.hours_without_overlap * self.slices.chips

  @property
  def money(self) -> float | None:
    """Money for training on demand, in the price's currency."""
    return self.price and self.chip_hours * self.price.on_demand

  @property
  def money_without_overlap(self) -> float | None:
    """Money for training on demand if nothing overlaps."""
    return self.price and self.chip_hours_without_overlap * self.price.on_demand

  @property
  def money_spot(self) -> float | None:
    """Money for training on spot chips; None if not known."""
    if self.price is None or self.price.spot is None:
      return None
    return self.chip_hours * self.price.spot


def make(
  config: TrainConfig,
  slices: Slices,
  price_table: Mapping[str, ChipPrice],
  compiles: bool = True,
) -> Plan:
  """Plans a run.

  Args:
    config: the run's config.
    slices: the slices to plan it for.
    price_table: the price of each kind of chip.
    compiles: whether to compile, which takes a minute or so.

  Raises:
    UserError: the run is impossible on such a mesh, whatever its memory.
  """
  gemma, mesh = read_sizes(config.lm), make_mesh(config.mesh, slices)
  made = on_mesh(config, gemma, mesh, slices, compiles)
  storage = price_table.storage if isinstance(price_table, PriceTable) else None
  price = price_table.get(slices.kind.name)
  return dataclasses.replace(made, price=price, storage=storage)


def with_evaluation(plan: Plan) -> Plan:
  """Returns a plan with the memory of the evaluation, which it compiles.

  Apart from `make`, because a search compares many plans by their steps. A plan
  whose step does not fit stays as it is.
  """
  if plan.compilation is None or not plan.fits:
    return plan
  config, mesh = plan.config, make_mesh(plan.config.mesh, plan.slices)
  state, lm, _ = abstract_arguments(config, read_sizes(config.lm), mesh)
  found = compile_evaluation(config, mesh, state, lm)
  return dataclasses.replace(plan, evaluation=found)


def on_mesh(
  config: TrainConfig,
  gemma: GemmaConfig,
  mesh: Mesh,
  slices: Slices,
  compiles: bool = True,
) -> Plan:
  """Plans a run on a mesh of these slices' devices, without a price."""
  config = config.fitted(mesh.shape["data"])
  for stack in config.stacks:
    stack.taps.check(gemma)
  check_rows(config, mesh)
  arguments = abstract_arguments(config, gemma, mesh)
  arguments[1].check_length(config.data.context)
  placed, error = _placed(config, mesh, arguments)
  compiled = None
  if compiles and placed:
    groups = make_groups(config.stacks, config.schedule, mesh, placed)
    compiled = compile_run(config, groups, arguments)
  sent = None
  if compiled is not None and compiled.text is not None:
    sent = communication.bytes_sent(config, mesh, compiled.text)
  breakdown = memory.breakdown(config, mesh, arguments, compiled)
  checkpoint = memory.in_all(arguments[0])
  export = sum(memory.in_all(stack.sae) for stack in arguments[0].stacks)
  evaluating = evaluation.work(config, arguments[1], mesh, slices.kind.chip)
  roofline = parts.of_step(
    config, gemma, mesh, slices, placed, breakdown.bucket, sent
  )
  return Plan(
    config=config,
    slices=slices,
    shape=tuple(mesh.shape.values()),
    memory=breakdown,
    roofline=roofline,
    compilation=compiled,
    sent=sent,
    checkpoint=checkpoint,
    export=export,
    evaluating=evaluating,
    stages=stages.of_run(
      config,
      gemma,
      mesh,
      config.steps * roofline.seconds,
      evaluating.seconds,
      checkpoint,
      export,
    ),
    error=error,
  )


def _placed(
  config: TrainConfig,
  mesh: Mesh,
  arguments: tuple[TrainState, Lm, TokenBatch],
) -> tuple[list[PlacementChoice], str]:
  """Returns the placement of each stack, or why none is possible."""
  state, lm, _ = arguments
  try:
    choices = choose_placements(
      config.stacks,
      config.schedule,
      mesh,
      state.stacks,
      bucket_dtype(config, lm),
      resident_bytes(config, mesh, lm),
    )
    return choices, ""
  except UserError as error:
    return [], str(error)
