"""The roofline: the least seconds that a step takes.

If arithmetic, memory and communication overlap perfectly, a part of a step
takes as long as the slowest of them; if nothing overlaps, it takes their sum.
Parts run one after the other. Figures are the makers' peaks, which no program
reaches: a real step takes longer than either.
"""

import dataclasses
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True)
class Part:
  """One part of a step, on one device.

  Attributes:
    name: what the part does, or which autoencoders it trains.
    compute: seconds of products.
    memory: seconds of reading and writing memory.
    communication: seconds of sending.
    flops: FLOPs.
    traffic: bytes read from memory and written to it.
    sent: bytes sent to other devices.
    where: its placement.
    why: the reason for the placement.
  """

  name: str
  compute: float
  memory: float
  communication: float
  flops: float = 0.0
  traffic: float = 0.0
  sent: float = 0.0
  where: str = ""
  why: str = ""

  @property
  def seconds(self) -> float:
    """Seconds if compute, memory and communication overlap perfectly."""
    return max(self.compute, self.memory, self.communication)

  @property
  def seconds_without_overlap(self) -> float:
    """Seconds if nothing overlaps."""
    return self.compute + self.memory + self.communication

  @property
  def bound(self) -> str:
    """The slowest of compute, memory and communication."""
    times = ("compute", "memory", "communication")
    return max(times, key=lambda name: getattr(self, name))


@dataclasses.dataclass(frozen=True)
class Roofline:
  """The roofline of a whole step, which is the sum of its parts."""

  parts: Sequence[Part]

  @property
  def seconds(self) -> float:
    """Seconds of a step if everything within a part overlaps."""
    return sum(part.seconds for part in self.parts)

  @property
  def seconds_without_overlap(self) -> float:
    """Seconds of a step if nothing overlaps."""
    return sum(part.seconds_without_overlap for part in self.parts)

  @property
  def flops(self) -> float:
    """FLOPs of a step on one device."""
    return sum(part.flops for part in self.parts)

  @property
  def traffic(self) -> float:
    """Bytes that one device reads from memory and writes in a step."""
    return sum(part.traffic for part in self.parts)

  @property
  def sent(self) -> float:
    """Bytes that one device sends in a step."""
    return sum(part.sent for part in self.parts)
