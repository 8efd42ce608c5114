"""The four placements: which mesh axes a stack is sharded over.

Between buckets all stacks have the same sharding (`layout.sharding`). For the
updates of a bucket each stack moves to the placement that suits it.

Where an array axis is sharded over both mesh axes, `data` changes fastest. A
single all-to-all or all-gather over `data` then turns it into an axis that is
sharded over `model` alone. In the other order devices would have to swap
shards as well.
"""

import dataclasses

Axes = tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Placement:
  """One way to shard a stack and the tokens that it is trained on.

  Attributes:
    name: its name as a value of `SweepConfig.placement`.
    saes: mesh axes over which autoencoders are sharded.
    latents: mesh axes over which the latents of each autoencoder are sharded.
    tokens: mesh axes over which the tokens of an update are sharded.
  """

  name: str
  saes: Axes = ()
  latents: Axes = ()
  tokens: Axes = ()


# Each device trains whole autoencoders. Only the tokens move.
BY_SAE = Placement("by_sae", saes=("model", "data"))
# Autoencoders are sharded over `model`, and their latents over `data`.
BY_SAE_AND_LATENT = Placement(
  "by_sae_and_latent", saes=("model",), latents=("data",)
)
# Gemma Scope's "maximum tensor parallelism" (arXiv 2408.05147 §3.3): tokens go
# to all devices, and reconstructions are summed over them.
BY_LATENT = Placement("by_latent", latents=("model", "data"))
# Tokens stay where the language model left them, and gradients are summed.
BY_LATENT_AND_ROW = Placement(
  "by_latent_and_row", latents=("model",), tokens=("data",)
)

ALL = {
  placement.name: placement
  for placement in (BY_SAE, BY_SAE_AND_LATENT, BY_LATENT, BY_LATENT_AND_ROW)
}
