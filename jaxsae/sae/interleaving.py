"""The order of latents in arrays that are split over devices.

A prefix is the first latents of an autoencoder. Where latents are split over
devices in their own order, the first devices hold whole prefixes and the last
ones nothing of them. So while such an autoencoder trains, its latents are dealt
out: blocks of them go to one shard after the other, and each shard keeps what
it gets in order. Its part of a prefix then is the first of its own latents.

Shapes: F latents, H shards, P = F/H latents of a shard.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np

# The smallest block of latents that is dealt out where none divides prefixes:
# TPUs keep arrays in tiles of eight rows.
LEAST = 8


# 1 for some of the latents of a slice and 0 for others, [H, latents of each
# shard]; None where it would be 1 for all.
Mask = np.ndarray | None


@dataclasses.dataclass(frozen=True)
class Segment:
  """Neighbouring latents of every shard, and the parts that have some of them.

  A part is what a prefix has beyond the prefix before it.

  Attributes:
    latents: the slice of each shard's latents.
    parts: the index of each part, and the mask of its latents.
  """

  latents: slice
  parts: tuple[tuple[int, Mask], ...]


@dataclasses.dataclass(frozen=True)
class Interleaving:
  """The order of latents [F] as H shards, one after the other.

  Latent i of an autoencoder is in block i // block, and block j is in shard
  j % H. With a single block for each shard, latents keep their own order.

  Attributes:
    shards: H.
    block: the number of neighbouring latents that go to one shard; H · block
      divides F.
  """

  shards: int = 1
  block: int = 1

  def parts(self, ends: Sequence[int]) -> Iterator[tuple[slice, Mask]]:
    """Yields each part: a slice of every shard's latents, and its mask in it.

    Where every end is a multiple of H · block, slices adjoin one another and
    there are no masks. Elsewhere neighbours overlap in a block.

    Args:
      ends: the number of latents in each prefix, ascending; the last is F.
    """
    row = self.shards * self.block
    for low, high in itertools.pairwise((0, *ends)):
      some = slice(low // row * self.block, -(-high // row) * self.block)
      yield some, self._mask(some, low, high)

  def segments(self, ends: Sequence[int]) -> Iterator[Segment]:
    """Yields all latents in slices that adjoin, with what parts have of each.

    Args:
      ends: the number of latents in each prefix, ascending; the last is F.
    """
    parts = list(enumerate(itertools.pairwise((0, *ends))))
    slices = [some for some, _ in self.parts(ends)]
    cuts = {some.start for some in slices} | {some.stop for some in slices}
    for start, stop in itertools.pairwise(sorted(cuts)):
      some = slice(start, stop)
      found = [
        (i, self._mask(some, low, high))
        for i, (low, high) in parts
        if slices[i].start <= start and stop <= slices[i].stop and low < high
      ]
      yield Segment(some, tuple(found))

  def _mask(self, some: slice, low: int, high: int) -> Mask:
    """Masks the latents from `low` to `high` in a slice of every shard's."""
    if low <= some.start * self.shards and some.stop * self.shards <= high:
      return None
    place = np.arange(some.start, some.stop)[None, :]
    shard = np.arange(self.shards)[:, None]
    latent = (place // self.block * self.shards + shard) * self.block
    latent += place % self.block
    return ((low <= latent) & (latent < high)).astype(np.float32)


OWN = Interleaving()  # the order of the latents themselves


def choose(ends: Sequence[int], shards: int, resting: int) -> Interleaving:
  """Chooses how latents are dealt out to shards.

  Blocks are as large as they can be with an equal share of every prefix for
  every shard. If there are none, they are small, and a few latents around the
  ends of prefixes are computed twice.

  Args:
    ends: the number of latents in each prefix, ascending; the last is F.
    shards: H, which divides F.
    resting: the number of neighbouring latents that a device holds between
      buckets. Blocks are parts of them, so each device sends every other the
      same number.
  """
  if len(ends) == 1:
    return Interleaving(shards, ends[0] // shards)
  even = math.gcd(resting, *ends)
  if even % shards == 0:
    return Interleaving(shards, even // shards)
  most = resting // shards if resting % shards == 0 else ends[-1] // shards
  return Interleaving(shards, math.gcd(most, LEAST))
