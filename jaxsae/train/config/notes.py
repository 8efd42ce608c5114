"""Notes on settings that may surprise, printed before a run starts."""

from collections.abc import Iterator

from jaxsae.train.config.run import TrainConfig
from jaxsae.train.config.sweep import Stack


def notes(config: TrainConfig) -> Iterator[str]:
  """Yields a line for each setting that is allowed but seldom intended."""
  sweeps = dict.fromkeys(stack.sweep for stack in config.stacks)
  for name in ("lr_warmup", "sparsity_warmup"):
    longest = max(getattr(sweep.optim, name) for sweep in sweeps)
    if longest > config.updates:
      yield (
        f"note: {name}={longest:,} updates is longer than the run, which has"
        f" {config.updates:,}; at its end {_WARMED[name]} is at"
        f" {_share(config.updates / longest)} of its way up"
      )
  if any(_overshoots(stack) for stack in config.stacks):
    yield (
      "note: with prefixes, the losses of all prefixes add up under one λ, so"
      " L0 ends above its target; a larger sparsity_coefficient brings it"
      " closer"
    )


_WARMED = {"lr_warmup": "the learning rate", "sparsity_warmup": "λ"}


def _share(part: float) -> str:
  return f"{part:.1%}".replace("%", " %")


def _overshoots(stack: Stack) -> bool:
  sweep = stack.sweep
  return bool(sweep.prefixes and sweep.target_l0 and sweep.pulls_by_penalty)
