"""What runs cost in arithmetic, and their fair division among machines."""

import dataclasses
from collections.abc import Mapping

from jaxsae.lm import GemmaConfig
from jaxsae.train.config.run import TrainConfig


@dataclasses.dataclass(frozen=True)
class Cost:
  """Of one run, or of several together.

  Attributes:
    saes: how many autoencoders.
    parameters: of all of them.
    sae_flops: floating-point operations of their training.
    lm_flops: of the language model's forward passes.
  """

  saes: int = 0
  parameters: int = 0
  sae_flops: int = 0
  lm_flops: int = 0

  @property
  def flops(self) -> int:
    return self.sae_flops + self.lm_flops

  def __add__(self, other: "Cost") -> "Cost":
    ours, theirs = dataclasses.astuple(self), dataclasses.astuple(other)
    return Cost(*(a + b for a, b in zip(ours, theirs, strict=True)))


def cost_of(config: TrainConfig, gemma: GemmaConfig) -> Cost:
  """The cost of a run on a language model of these sizes.

  As Gemma Scope's paper counts (arXiv 2408.05147 §3.3), an autoencoder takes
  6 operations a token for each of its weights: dense products, forward and
  backward. Evaluation is left out.

  Raises:
    UserError: the model lacks a site.
  """
  cost = Cost()
  for site in config.sites:
    site.check(gemma)
  for stack in config.stacks:
    size, f = len(stack.members), stack.width
    d_in, d = stack.site.input.width(gemma), stack.site.output.width(gemma)
    weights = (d_in + d) * f + (d_in * d if stack.sweep.skip else 0)
    cost += Cost(
      saes=size,
      parameters=size * (weights + 2 * f + d),
      sae_flops=size * 6 * weights * config.tokens,
    )
  return cost + Cost(lm_flops=config.tokens * _forward(config, gemma))


def _forward(config: TrainConfig, gemma: GemmaConfig) -> int:
  """Operations a token of the forward pass, which ends at the last site.

  Two for each weight of a product, and attention's products of all pairs in a
  row. A block counts whole, wherever in it the last site is.
  """
  blocks = 1 + max(site.layer for site in config.sites)
  heads = gemma.num_heads * gemma.head_dim
  kv_heads = gemma.num_kv_heads * gemma.head_dim
  weights = gemma.embed_dim * (2 * heads + 2 * kv_heads + 3 * gemma.hidden_dim)
  pairs = 2 * heads * config.data.context
  return blocks * 2 * (weights + pairs)


def shares(flops: Mapping[str, int], count: int) -> list[list[str]]:
  """Runs by name, dealt to machines of one kind so that all end about as soon.

  The longest go first, each to the machine with the least to do: no machine
  gets more than the fair share and one run. Within a share they stay in order.

  Args:
    flops: the arithmetic of each run.
    count: how many machines; those without a run have an empty share.
  """
  dealt, loads = [set() for _ in range(count)], [0] * count
  for name in sorted(flops, key=flops.get, reverse=True):
    least = loads.index(min(loads))
    dealt[least].add(name)
    loads[least] += flops[name]
  return [[name for name in flops if name in share] for share in dealt]
