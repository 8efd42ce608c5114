"""The protocol of a source of activations, and what sources share.

To add a source, write one file here with a class of this shape, and let
`loop.py` open it.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Protocol

import jax.numpy as jnp

from jaxsae.lm import Site
from jaxsae.train.update import Activations


@dataclasses.dataclass(frozen=True)
class Bucket:
  """The batch that one step is trained on, and where it lies in the data.

  Attributes:
    batch: arrays on the devices, of which the source's `read` makes
      activations.
    before: the data position from which it is read again.
    after: the data position to go on from when it has been trained on.
  """

  batch: Any
  before: dict
  after: dict


class Source(Protocol):
  """A source of activations, one bucket after the other.

  Attributes:
    weights: what `read` needs besides a batch, such as a language model's
      weights; a pytree of arrays on the devices, or None.
    widths: the width D of every site.
    dtype: the dtype of the activations.
    position: the data position after the last bucket that was taken. Buckets
      that are read ahead don't count: a checkpoint with this position goes on
      with the first bucket that was not trained on.
  """

  weights: Any

  @property
  def widths(self) -> Mapping[Site, int]: ...

  @property
  def dtype(self) -> jnp.dtype: ...

  @property
  def position(self) -> dict: ...

  def read(self, weights: Any, batch: Any) -> Activations:
    """Makes the activations of a bucket, [B, L, D] at every site; traced."""
    ...

  def peek(self) -> Bucket:
    """Reads the next bucket unless it is read, and leaves it for `take`."""
    ...

  def take(self) -> Bucket:
    """Takes the next bucket."""
    ...

  def go_to(self, position: dict) -> None:
    """Goes on from a position that a checkpoint holds."""
    ...

  def provenance(self, bucket: Bucket) -> dict:
    """Returns what the bucket was read from, as JSON."""
    ...

  def describe(self, bucket: Bucket) -> str:
    """Describes where the bucket lies in the data, in a few words."""
    ...

  def close(self) -> None:
    """Ends the threads that read ahead, if there are any."""
    ...


class Prefetcher:
  """The part of a source that hands out buckets; reads at most one ahead.

  A subclass defines `_next`, which reads the next bucket.

  Args:
    position: the data position before the first bucket.
  """

  def __init__(self, position: dict):
    self._start_at(position)

  def _start_at(self, position: dict) -> None:
    self._position = position
    self._ready: Bucket | None = None

  def _next(self) -> Bucket:
    raise NotImplementedError

  @property
  def position(self) -> dict:
    """The data position after the last bucket that was taken."""
    return self._position

  def peek(self) -> Bucket:
    """Reads the next bucket unless it is read, and leaves it for `take`."""
    if self._ready is None:
      self._ready = self._next()
    return self._ready

  def take(self) -> Bucket:
    """Takes the next bucket."""
    bucket, self._ready = self.peek(), None
    self._position = bucket.after
    return bucket
