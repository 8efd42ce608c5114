"""FLOPs of training runs, and shares of runs with about equal FLOPs."""

import dataclasses
from collections.abc import Mapping

from jaxsae.lm import GemmaConfig
from jaxsae.lm.flops import forward_flops_per_token
from jaxsae.sae.flops import update_flops_per_token
from jaxsae.train.config.run import TrainConfig


@dataclasses.dataclass(frozen=True)
class RunFlops:
  """Size and FLOPs of one run, or the sums over several.

  Attributes:
    saes: number of autoencoders.
    parameters: number of parameters of all autoencoders.
    sae_flops: FLOPs of training the autoencoders.
    lm_flops: FLOPs of the language model's forward passes.
  """

  saes: int = 0
  parameters: int = 0
  sae_flops: int = 0
  lm_flops: int = 0

  @property
  def flops(self) -> int:
    """All FLOPs: the autoencoders' and the language model's."""
    return self.sae_flops + self.lm_flops

  def __add__(self, other: "RunFlops") -> "RunFlops":
    ours, theirs = dataclasses.astuple(self), dataclasses.astuple(other)
    return RunFlops(*(a + b for a, b in zip(ours, theirs, strict=True)))


def run_flops(config: TrainConfig, gemma: GemmaConfig) -> RunFlops:
  """Counts the FLOPs of a run from its config and the model's sizes.

  As a plan counts them: `update_flops_per_token` for each autoencoder, and
  `forward_flops_per_token` once for all of them. Evaluation is not counted.

  Raises:
    UserError: the model does not have one of the sites.
  """
  total = RunFlops()
  for site in config.sites:
    site.check(gemma)
  for stack in config.stacks:
    size, f = len(stack.members), stack.width
    d_in, d = stack.site.input.width(gemma), stack.site.output.width(gemma)
    skip = stack.sweep.skip
    weights = (d_in + d) * f + (d_in * d if skip else 0)
    per_token = update_flops_per_token(d_in, d, f, skip)
    total += RunFlops(
      saes=size,
      parameters=size * (weights + 2 * f + d),
      sae_flops=round(size * per_token * config.tokens),
    )
  per_token = forward_flops_per_token(gemma, config.sites, config.data.context)
  return total + RunFlops(lm_flops=round(config.tokens * per_token))


def balanced_shares(flops: Mapping[str, float], count: int) -> list[list[str]]:
  """Splits runs into one share per machine, with about equal FLOPs.

  Largest run first, each goes to the machine with the least FLOPs so far, so
  no machine exceeds the mean by more than one run. A share keeps the order of
  the runs.

  Args:
    flops: run's name → FLOPs.
    count: number of machines; with too few runs, some shares are empty.
  """
  assigned: list[set[str]] = [set() for _ in range(count)]
  loads = [0.0] * count
  for name in sorted(flops, key=lambda name: flops[name], reverse=True):
    least = loads.index(min(loads))
    assigned[least].add(name)
    loads[least] += flops[name]
  return [[name for name in flops if name in share] for share in assigned]
