"""Edits whose sites are data: one compiled pass serves every layer.

`forward.run` traces its edits where they are, so that every site makes another
program; compiling one of a large model takes a minute. Here each candidate site
compares its own number with those that are given, and edits its activation if
they are equal.

Shapes: B batch, T time, D site width, R sites read, W sites written, N values.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxsae.lm.edits import Patch, Splice, at_output
from jaxsae.lm.gemma import Tap
from jaxsae.lm.lm import Lm
from jaxsae.lm.sites import Site, Taps
from jaxsae.token_batch import TokenBatch

NOWHERE = -1  # the number of no site


@dataclasses.dataclass(frozen=True)
class Shape:
  """The structure of taps; those with equal shapes share a compiled program.

  Attributes:
    reads_at: the kinds of site, such as resid, that may be read.
    writes_at: the kinds of site that may be written.
    reads: R.
    writes: W.
    one_site: whether the site that is read is the one that is written.
    causal: `Taps.is_causal`.
  """

  reads_at: tuple[str, ...]
  writes_at: tuple[str, ...]
  reads: int
  writes: int
  one_site: bool
  causal: bool

  @classmethod
  def of(cls, taps: Taps) -> "Shape":
    """Returns the shape of taps."""
    return cls(
      reads_at=tuple(sorted({site.where for site in taps.reads})),
      writes_at=tuple(sorted({site.where for site in taps.writes})),
      reads=len(taps.reads),
      writes=len(taps.writes),
      one_site=len(taps.sites) == 1,
      causal=taps.is_causal,
    )

  @property
  def counts(self) -> tuple:
    """All but the kinds of site; shapes with equal counts can be joined."""
    return self.reads, self.writes, self.one_site, self.causal

  def __or__(self, other: "Shape") -> "Shape":
    """Returns the shape that serves the taps of both, where counts are equal.

    The sites must be of one width.
    """
    join = lambda a, b: tuple(sorted({*a, *b}))
    return dataclasses.replace(
      self,
      reads_at=join(self.reads_at, other.reads_at),
      writes_at=join(self.writes_at, other.writes_at),
    )


class MovingSplice(struct.PyTreeNode):
  """A splice at taps that are data.

  Attributes:
    splice: what is spliced in, with the tokens where it is, or None.
    reads: numbers of the sites that are read, int32 [R].
    writes: numbers of the sites that are written, int32 [W].
    shape: the structure of the taps.
  """

  splice: Splice
  reads: jax.Array | np.ndarray
  writes: jax.Array | np.ndarray
  shape: Shape = struct.field(pytree_node=False)

  @classmethod
  def at(cls, taps: Taps, splice: Splice, shape: Shape) -> "MovingSplice":
    """Makes a splice at some taps, whose structure is `shape`."""
    return cls(splice, _numbers(taps.reads), _numbers(taps.writes), shape)


class MovingPatch(struct.PyTreeNode):
  """Values that replace activations at sites that are data.

  Attributes:
    at: kind of site → numbers of sites, int32 [N]; `NOWHERE` patches none.
    values: kind of site → one value for each of these, float32 [N, D].
    mask: [B, T]; tokens where it is 0 stay as they are.
  """

  at: Mapping[str, jax.Array | np.ndarray]
  values: Mapping[str, jax.Array | np.ndarray]
  mask: jax.Array | None = None


def stream_spliced(lm: Lm, batch: TokenBatch, edit: MovingSplice) -> jax.Array:
  """Returns the residual stream [B, T, D] after all blocks, with a splice."""
  read: list[jax.Array] | None = None
  if not edit.shape.causal:  # what is read is computed after what is written
    reading = _Reader(edit)
    _stream(lm, batch, reading.look)
    read = reading.seen
  reader = _Reader(edit)

  def tap(where, layer, x):
    x = reader.look(where, layer, x)
    seen = read or reader.seen
    if where not in edit.shape.writes_at or not seen:
      return x  # nothing that is read comes before this site
    return _spliced(edit, Site(where, layer), x, seen)

  return _stream(lm, batch, tap)


def stream_patched(lm: Lm, batch: TokenBatch, edit: MovingPatch) -> jax.Array:
  """Returns the residual stream [B, T, D] after all blocks, with patches."""

  def tap(where, layer, x):
    for index in range(len(edit.at.get(where, ()))):
      patched = Patch(edit.values[where][index], edit.mask)(x)
      is_here = edit.at[where][index] == Site(where, layer).number
      x = jnp.where(is_here, patched, x)
    return x

  return _stream(lm, batch, tap)


class _Reader:
  """Keeps the activations of the sites that a splice reads, as they come by.

  Until a read site has come by, `seen` holds an earlier activation instead.
  """

  def __init__(self, edit: MovingSplice):
    self._edit = edit
    self.seen: list[jax.Array] = []

  def look(self, where: str, layer: int, x: jax.Array) -> jax.Array:
    """Is a tap that changes nothing."""
    if where not in self._edit.shape.reads_at:
      return x
    count, here = self._edit.shape.reads, Site(where, layer).number
    if self._edit.shape.one_site:  # it is read where it is written
      self.seen = [x]
      return x
    before = self.seen or [x] * count
    self.seen = [
      jnp.where(self._edit.reads[i] == here, x, before[i]) for i in range(count)
    ]
    return x


def _spliced(
  edit: MovingSplice, site: Site, x: jax.Array, read: Sequence[jax.Array]
) -> jax.Array:
  """Returns the activation of a site, with the splice if it is written."""

  for index in range(edit.shape.writes):
    is_here = edit.writes[index] == site.number
    change = lambda x, read, i=index: _changed(edit, x, read, i)
    x = jax.lax.cond(is_here, change, lambda x, read: x, x, read)
  return x


@functools.partial(jax.jit, static_argnames="index")  # traced once for all
def _changed(
  edit: MovingSplice, x: jax.Array, read: Sequence[jax.Array], index: int
) -> jax.Array:
  """Returns the new activation of the site that is written at an index."""
  part = slice(None)
  if edit.shape.writes > 1:
    part = slice(index * x.shape[-1], (index + 1) * x.shape[-1])
  return at_output(edit.splice, x, jnp.concatenate(read, axis=-1), part)


def _stream(lm: Lm, batch: TokenBatch, tap: Tap) -> jax.Array:
  blocks = lm.config.num_layers
  return lm.apply(batch.tokens, batch.segments, batch.positions, tap, blocks)


def _numbers(sites: Sequence[Site]) -> np.ndarray:
  return np.array([site.number for site in sites], np.int32)
