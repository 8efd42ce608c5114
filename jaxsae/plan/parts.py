"""The parts of a step in order, and the seconds each takes on one device."""

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
from jaxsae.train.config.sweep import Stack
from jaxsae.train.placement.select import PlacementChoice

COMPILED = "compiled"  # `where` of parts that only the compiler knows

# Once per bucket, JumpReLU's thresholds are diagnosed. That takes an update's
# products without the gradients of weights and decoder: six tenths of them.
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
  """Returns the roofline of a whole step.

  Args:
    config: the run's config.
    gemma: the language model's sizes.
    mesh: the mesh of devices.
    slices: the slices that the devices belong to.
    placed: the placement of each stack.
    bucket: bytes of activations on one device.
    sent: bytes that the compiled step sends; None if it was not compiled.
  """
  chip = slices.kind.chip
  made = [_reading(config, gemma, mesh, chip), _shuffle(bucket, chip)]
  made += [_training(config, choice, chip) for choice in placed]
  if sent is not None:
    made += _compiled(slices, sum(part.sent for part in made), sent)
  return Roofline(tuple(made))


def _reading(
  config: TrainConfig, gemma: GemmaConfig, mesh: Mesh, chip: Chip
) -> Part:
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
  """The shuffle: a bucket is written, read, written in order and read again."""
  traffic = 4.0 * bucket
  return Part(
    name="bucket",
    compute=0.0,
    memory=traffic / chip.hbm_bandwidth,
    communication=0.0,
    traffic=traffic,
    where="rows over data, numbers of a token over model",
    why="a permutation never crosses a row",
  )


def _training(config: TrainConfig, choice: PlacementChoice, chip: Chip) -> Part:
  time, updates = choice.time, config.updates_per_bucket
  stacks = [config.stacks[i] for i in choice.indices]
  passes: float = updates
  if isinstance(stacks[0].architecture, JumpRelu):
    passes += _DIAGNOSIS
  return Part(
    name=_named(stacks),
    compute=passes * time.compute,
    memory=passes * time.memory,
    communication=updates * time.communication,
    flops=passes * time.flops,
    traffic=passes * time.memory * chip.hbm_bandwidth,
    sent=updates * time.sent,
    where=str(time.placement),
    why=_why(stacks, choice),
  )


def _named(stacks: Sequence[Stack]) -> str:
  count = sum(len(stack.members) for stack in stacks)
  several = f" to {stacks[-1]}" if len(stacks) > 1 else ""
  return f"{count} of {stacks[0]}{several}"


def _why(stacks: Sequence[Stack], choice: PlacementChoice) -> str:
  if stacks[0].sweep.placement != "auto":
    return "asked for"
  best = choice.others[0]
  name = best.placement
  if best.error:
    return f"{name} {best.error}"
  times = best.seconds / choice.time.seconds
  if times < 1.005:
    return f"as fast as {name}"
  return f"{name} takes {times:.3g} times as long"


def _compiled(slices: Slices, predicted: float, sent: BytesSent) -> list[Part]:
  """Returns what the compiled step sends beyond the prediction."""
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
