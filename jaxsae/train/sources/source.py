"""What a run's activations may come from: the protocol of a source.

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
    """Returns the next bucket, which the next `take` returns again."""
    ...

  def take(self) -> Bucket:
    """Takes the next bucket."""
    ...

  def read_ahead(self) -> None:
    """Reads the next bucket unless it is read; raises errors of reading."""
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
