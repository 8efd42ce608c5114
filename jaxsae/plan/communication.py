"""What a compiled step sends, by kind of collective and axis of the mesh."""

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
    within: (kind, axis) → bytes through its own slice.
    between: bytes to other slices.
  """

  within: dict[tuple[str, str], float]
  between: float = 0.0

  @property
  def total(self) -> float:
    return sum(self.within.values()) + self.between


def bytes_sent(config: TrainConfig, mesh: Mesh, text: str) -> BytesSent:
  """Of all collectives of a compiled step.

  Args:
    config: the run's.
    mesh: of the devices, slice by slice.
    text: of the compiled step, which is that of one slice.
  """
  within, between = collections.Counter(), 0.0
  for one, times in _every(config, text):
    if one.between:
      between += times * one.sent
    else:
      within[one.kind, axis(one, mesh)] += times * one.sent
  return BytesSent({key: size for key, size in within.items() if size}, between)


def _every(config, text) -> Iterator[tuple[Collective, int]]:
  """Each with how often it runs in a bucket.

  The compiler does not write how often its loops turn, and of loops of one
  turn it leaves none.
  """
  for one in hlo.in_updates(text):
    yield one, config.updates_per_bucket
  for one in hlo.in_reads(text):
    yield one, config.bucket.microbatches
  for one in hlo.outside(text, UPDATES, READS):
    yield one, 1


def axis(one: Collective, mesh: Mesh) -> str:
  """`data`, `model` or `data+model`: along which those that take part lie."""
  places, model = one.together or range(mesh.size), mesh.shape["model"]
  along = {
    "data": len({place // model for place in places}),
    "model": len({place % model for place in places}),
  }
  return "+".join(name for name, size in along.items() if size > 1)
