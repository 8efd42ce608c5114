"""Where a stack is trained: what is spread over which axes of the mesh.

Between buckets all stacks rest alike (`state.sharding`). For the updates of a
bucket each takes the place that suits it.

Where an axis is spread over both axes of the mesh, `data` changes fastest:
what lies so goes by a single all-to-all, or gather, over `data` to where only
`model` spreads it. The other way round devices would have to swap places too.
"""

import dataclasses

Axes = tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Placement:
  """One way to spread a stack.

  Attributes:
    name: as `SweepConfig.placement` has it.
    saes: mesh axes over which autoencoders are spread.
    latents: over which the latents of each are.
    rows: over which the tokens of an update are.
  """

  name: str
  saes: Axes = ()
  latents: Axes = ()
  rows: Axes = ()


# Each device trains whole autoencoders. Only the tokens move.
BY_SAE = Placement("by_sae", saes=("model", "data"))
# The same over `model`, and within it latents over `data`.
BY_SAE_AND_LATENT = Placement(
  "by_sae_and_latent", saes=("model",), latents=("data",)
)
# Gemma Scope's "maximum tensor parallelism" (arXiv 2408.05147 §3.3): tokens go
# to all devices, and what they reconstruct is summed.
BY_LATENT = Placement("by_latent", latents=("model", "data"))
# Tokens stay where the language model left them, and gradients are summed.
BY_LATENT_AND_ROW = Placement(
  "by_latent_and_row", latents=("model",), rows=("data",)
)

ALL = {
  placement.name: placement
  for placement in (BY_SAE, BY_SAE_AND_LATENT, BY_LATENT, BY_LATENT_AND_ROW)
}
