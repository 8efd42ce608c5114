"""How long a step takes at the least: arithmetic, memory and communication.

Each part of a step is bound by the slowest of the three, if they overlap as
well as can be, and takes their sum if they do not overlap at all. Parts come
one after the other. Figures are the makers' peaks, which no program reaches:
a real step takes longer than either says of its kernels.
"""

import dataclasses
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True)
class Part:
  """Of a step, on one device.

  Attributes:
    name: what it is.
    compute: seconds of products.
    memory: seconds of reading and writing memory.
    communication: seconds of sending.
    flops: operations.
    traffic: bytes read and written.
    sent: bytes to other devices.
    where: how it is placed.
    why: what is said for it.
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
    """If the three overlap as well as can be."""
    return max(self.compute, self.memory, self.communication)

  @property
  def seconds_without_overlap(self) -> float:
    """If they do not."""
    return self.compute + self.memory + self.communication

  @property
  def bound(self) -> str:
    """Which of the three rules."""
    times = ("compute", "memory", "communication")
    return max(times, key=lambda name: getattr(self, name))


@dataclasses.dataclass(frozen=True)
class Roofline:
  """Of a whole step, part after part."""

  parts: Sequence[Part]

  @property
  def seconds(self) -> float:
    return sum(part.seconds for part in self.parts)

  @property
  def seconds_without_overlap(self) -> float:
    return sum(part.seconds_without_overlap for part in self.parts)

  @property
  def flops(self) -> float:
    return sum(part.flops for part in self.parts)

  @property
  def traffic(self) -> float:
    return sum(part.traffic for part in self.parts)

  @property
  def sent(self) -> float:
    return sum(part.sent for part in self.parts)
