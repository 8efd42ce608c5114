"""FLOPs of training runs, and shares of runs with about equal FLOPs."""

import dataclasses
from collections.abc import Mapping

from jaxsae.lm import GemmaConfig
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

  Gemma Scope's rule (arXiv 2408.05147 §3.3): training an autoencoder takes 6
  FLOPs per weight and token, for dense products forward and backward.
  Evaluation is not counted.

  Raises:
    UserError: the model does not have one of the sites.
  """
  total = RunFlops()
  for site in config.sites:
    site.check(gemma)
  for stack in config.stacks:
    size, f = len(stack.members), stack.width
    d_in, d = stack.site.input.width(gemma), stack.site.output.width(gemma)
    weights = (d_in + d) * f + (d_in * d if stack.sweep.skip else 0)
    total += RunFlops(
      saes=size,
      parameters=size * (weights + 2 * f + d),
      sae_flops=size * 6 * weights * config.tokens,
    )
  lm_flops = config.tokens * _forward_flops_per_token(config, gemma)
  return total + RunFlops(lm_flops=lm_flops)


def _forward_flops_per_token(config: TrainConfig, gemma: GemmaConfig) -> int:
  """FLOPs per token of a forward pass that ends at the last site.

  Two for each weight of a matrix product, plus attention's products over all
  pairs of a row. The last block is counted in full, wherever its site is.
  """
  blocks = 1 + max(site.layer for site in config.sites)
  heads = gemma.num_heads * gemma.head_dim
  kv_heads = gemma.num_kv_heads * gemma.head_dim
  weights = gemma.embed_dim * (2 * heads + 2 * kv_heads + 3 * gemma.hidden_dim)
  pairs = 2 * heads * config.data.context
  return blocks * 2 * (weights + pairs)


def balanced_shares(flops: Mapping[str, int], count: int) -> list[list[str]]:
  """Splits runs into one share per machine, with about equal FLOPs.

  Largest run first, each goes to the machine with the least FLOPs so far, so
  no machine exceeds the mean by more than one run. A share keeps the order of
  the runs.

  Args:
    flops: run's name → FLOPs.
    count: number of machines; with too few runs, some shares are empty.
  """
  assigned, loads = [set() for _ in range(count)], [0] * count
  for name in sorted(flops, key=flops.get, reverse=True):
    least = loads.index(min(loads))
    assigned[least].add(name)
    loads[least] += flops[name]
  return [[name for name in flops if name in share] for share in assigned]
