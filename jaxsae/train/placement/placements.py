"""The placements: which mesh axes a stack is sharded over.

Between buckets all stacks have the same sharding (`layout.sharding`). For the
updates of a bucket each stack moves to the placement that suits it.

Where an array axis is sharded over both mesh axes, `data` changes fastest. A
single all-to-all or all-gather over `data` then turns it into an axis that is
sharded over `model` alone. In the other order devices would have to swap
shards as well.

A few autoencoders on many devices train fastest where `data` itself is divided:
autoencoders are sharded over one part of it, the latents of each over the rest.
Then fewer devices sum each reconstruction.
"""

import dataclasses

from jax.sharding import AbstractMesh, Mesh

from jaxsae import mesh as meshes

# The two parts of `data`, where it is divided. `SAES` changes fastest.
LATENTS, SAES = "data_latents", "data_saes"

Axes = tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Placement:
  """One way to shard a stack and the tokens that it is trained on.

  Attributes:
    name: its name as a value of `SweepConfig.placement`.
    saes: mesh axes over which autoencoders are sharded.
    latents: mesh axes over which the latents of each autoencoder are sharded.
    tokens: mesh axes over which the tokens of an update are sharded.
    part: the size of `SAES`, if `data` is divided; else 1.
  """

  name: str
  saes: Axes = ()
  latents: Axes = ()
  tokens: Axes = ()
  part: int = 1

  def __str__(self) -> str:
    if self.part == 1:
      return self.name
    return f"{self.name} (data in {self.part} parts)"

  def mesh(self, mesh: meshes.AnyMesh) -> meshes.AnyMesh:
    """Returns the mesh that has this placement's axes, of the same devices."""
    if self.part == 1:
      return mesh
    rest = mesh.shape["data"] // self.part
    return meshes.divide(mesh, "data", {LATENTS: rest, SAES: self.part})


# Each device trains whole autoencoders. Only the tokens move.
BY_SAE = Placement("by_sae", saes=("model", "data"))
# Autoencoders are sharded over `model`, and their latents over `data`; or, with
# `divided`, autoencoders over `model` and a part of `data`.
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


def divided(part: int) -> Placement:
  """Returns `BY_SAE_AND_LATENT` with autoencoders over a part of `data` too.

  Args:
    part: into how many parts `data` is divided among autoencoders.
  """
  return Placement(
    BY_SAE_AND_LATENT.name, saes=("model", SAES), latents=(LATENTS,), part=part
  )


def on(mesh: Mesh | AbstractMesh) -> list[Placement]:
  """Returns all placements on a mesh, with every way to divide `data`."""
  data = mesh.shape["data"]
  parts = [n for n in meshes.divisors(data) if 1 < n < data]
  return [*ALL.values(), *map(divided, parts)]
