"""The parts of a step, in their order, and what each takes of one device."""

from collections.abc import Sequence

from jax.sharding import Mesh

from jaxsae.chips import Chip
from jaxsae.lm import GemmaConfig
from jaxsae.plan import lm_work
from jaxsae.plan.communication import BytesSent
from jaxsae.plan.roofline import Part, Roofline
from jaxsae.plan.topology import Slices
from jaxsae.sae import JumpRelu
from jaxsae.train.config.run import TrainConfig
from jaxsae.train.placement.select import PlacementChoice

COMPILED = "compiled"  # the place of what only the compiler knows

# Once a bucket the thresholds are looked at: what an update takes without the
# gradients of weights and decoder, six tenths of its products.
_DIAGNOSIS = 0.6


def of_step(
  config: TrainConfig,
  gemma: GemmaConfig,
  mesh: Mesh,
  slices: Slices,
  placed: Sequence[PlacementChoice],
  bucket: int,
  sent: BytesSent | None,
) -> Roofline:
  """A whole step.

  Args:
    config: the run's.
    gemma: the language model's sizes.
    mesh: of the devices.
    slices: whose devices they are.
    placed: where each stack is trained.
    bucket: bytes of activations on one device.
    sent: what the compiled step sends; None where it is not compiled.
  """
  chip = slices.kind.chip
  made = [_reading(config, gemma, mesh, chip), _shuffle(bucket, chip)]
  made += [_training(config, choice, chip) for choice in placed]
  if sent is not None:
    made += _found(slices, sum(part.sent for part in made), sent)
  return Roofline(tuple(made))


def _reading(config, gemma, mesh, chip: Chip) -> Part:
  work = lm_work.work(config, gemma, mesh)
  last = max(site.layer for site in config.sites)
  weights = "weights over both axes" if config.fsdp else "weights over model"
  return Part(
    name=f"language model to layer {last}",
    compute=work.flops / chip.flops,
    memory=work.traffic / chip.hbm_bandwidth,
    communication=work.sent / chip.link_bandwidth,
    flops=work.flops,
    traffic=work.traffic,
    sent=work.sent,
    where=f"rows over data, {weights}",
    why="--fsdp=true" if config.fsdp else "--fsdp=false",
  )


def _shuffle(bucket: int, chip: Chip) -> Part:
  """Written once, then taken row by row: read, written, and read again."""
  traffic = 4.0 * bucket
  return Part(
    name="bucket",
    compute=0.0,
    memory=traffic / chip.hbm_bandwidth,
    communication=0.0,
    traffic=traffic,
    where="rows over data",
    why="a permutation never crosses a row",
  )


def _training(config: TrainConfig, choice: PlacementChoice, chip: Chip) -> Part:
  time, updates = choice.time, config.updates_per_bucket
  stacks = [config.stacks[i] for i in choice.indices]
  turns = updates
  if isinstance(stacks[0].architecture, JumpRelu):
    turns += _DIAGNOSIS
  return Part(
    name=_named(stacks),
    compute=turns * time.compute,
    memory=turns * time.memory,
    communication=updates * time.communication,
    flops=turns * time.flops,
    traffic=turns * time.memory * chip.hbm_bandwidth,
    sent=updates * time.sent,
    where=time.placement.name,
    why=_why(stacks, choice, updates),
  )


def _named(stacks) -> str:
  count = sum(len(stack.members) for stack in stacks)
  several = f" to {stacks[-1]}" if len(stacks) > 1 else ""
  return f"{count} of {stacks[0]}{several}"


def _why(stacks, choice: PlacementChoice, updates: int) -> str:
  if stacks[0].sweep.placement != "auto":
    return "asked for"
  best = choice.others[0]
  name = best.placement.name
  if best.error:
    return f"{name} {best.error}"
  times = best.seconds / choice.time.seconds
  if times < 1.005:
    return f"as cheap as {name}"
  return f"{name} takes {times:.3g} times as long"


def _found(slices: Slices, predicted: float, sent: BytesSent) -> list[Part]:
  """What the compiler found to send beyond that, and what crosses slices."""
  within = sum(sent.within.values())
  made = []
  if within > predicted:
    extra = within - predicted
    seconds = extra / slices.kind.chip.link_bandwidth
    made.append(
      Part("other collectives", 0.0, 0.0, seconds, sent=extra, where=COMPILED)
    )
  if sent.between:
    seconds = sent.between * slices.kind.devices / slices.kind.dcn
    made.append(
      Part(
        "between slices", 0.0, 0.0, seconds, sent=sent.between, where=COMPILED
      )
    )
  return made
