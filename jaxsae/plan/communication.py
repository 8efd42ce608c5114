"""Bytes that a compiled step sends, by kind of collective and mesh axis."""

import collections
import dataclasses
from collections.abc import Iterator

from jax.sharding import Mesh

from jaxsae.plan import hlo
from jaxsae.plan.hlo import READS, UPDATES, Collective
from jaxsae.train.config.run import TrainConfig


@dataclasses.dataclass(frozen=True)
class BytesSent:
  """Bytes that one device sends for one bucket.

  Attributes:
    within: (kind, axis) → bytes sent within a slice.
    between: bytes sent to other slices.
  """

  within: dict[tuple[str, str], float]
  between: float = 0.0

  @property
  def total(self) -> float:
    """Bytes sent in all, within a slice and to others."""
    return sum(self.within.values()) + self.between


def bytes_sent(config: TrainConfig, mesh: Mesh, text: str) -> BytesSent:
  """Returns the bytes that all collectives of a compiled step send.

  Args:
    config: the run's config.
    mesh: the mesh of devices, slice by slice.
    text: the compiled program, which is the same for each slice.
  """
  within, between = collections.defaultdict(float), 0.0
  for one, times in _collectives(config, text):
    if one.between_slices:
      between += times * one.sent
    else:
      within[one.kind, axis(one, mesh)] += times * one.sent
  return BytesSent({key: size for key, size in within.items() if size}, between)


def _collectives(
  config: TrainConfig, text: str
) -> Iterator[tuple[Collective, int]]:
  """Yields each collective, and how often it runs for one bucket.

  The program does not say how often its loops run, and the compiler removes
  loops that run once.
  """
  for one in hlo.in_updates(text):
    yield one, config.updates_per_bucket
  for one in hlo.in_reads(text):
    yield one, config.microbatches
  for one in hlo.outside(text, UPDATES, READS):
    yield one, 1


def axis(one: Collective, mesh: Mesh) -> str:
  """Returns the mesh axis of a collective: `data`, `model` or `data+model`."""
  places, model = one.group or range(mesh.size), mesh.shape["model"]
  along = {
    "data": len({place // model for place in places}),
    "model": len({place % model for place in places}),
  }
  return "+".join(name for name, size in along.items() if size > 1)
