"""Arrays in memory as a source of activations.

Shapes: N tokens, D site width.
"""

from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np

from jaxsae.errors import UserError
from jaxsae.lm import Site
from jaxsae.train.sources.source import Bucket, Prefetcher
from jaxsae.train.update import Activations


class ArraySource(Prefetcher):
  """Buckets that are arrays, one after the other; see `source.Source`.

  Args:
    draw: raw activations [N, D], one array for each bucket.
    sites: the sites whose activations these are; all read the same array.
    first: an array like those drawn, of which only shape and dtype are used.
  """

  weights = None

  def __init__(
    self, draw: Iterable[jax.Array], sites: Iterable[Site], first: jax.Array
  ):
    super().__init__({"drawn": 0})
    self._draw, self._sites = iter(draw), tuple(sites)
    self._width = first.shape[-1]
    self.widths = dict.fromkeys(self._sites, self._width)
    self.dtype = jnp.dtype(first.dtype)

  def read(self, weights: None, batch: jax.Array) -> Activations:
    """Takes an array [N, D] as one row, all of whose tokens count."""
    del weights
    return read_array(self._sites, batch)

  def _next(self) -> Bucket:
    """Draws the next array.

    Raises:
      UserError: there are no more arrays, or the next has a wrong shape.
    """
    drawn = self.position["drawn"]
    x, width = next(self._draw, None), self._width
    if x is None:
      raise UserError(
        f"The arrays end after {drawn}; give one for each update, or train for"
        " fewer updates."
      )
    if np.ndim(x) != 2 or x.shape[-1] != width:
      raise UserError(
        f"Array {drawn} has shape {list(np.shape(x))}; give [tokens, {width}],"
        " as wide as the array that the scale comes from."
      )
    return Bucket(x, {"drawn": drawn}, {"drawn": drawn + 1})

  def go_to(self, position: dict) -> None:
    """Draws, and drops, the arrays before a position.

    Raises:
      ValueError: they are drawn already, and cannot be drawn again.
    """
    if position["drawn"] < self.position["drawn"]:
      raise ValueError(f"cannot go back from {self.position} to {position}")
    while self.position != position:
      self.take()

  def provenance(self, bucket: Bucket) -> dict:
    """Returns the number of arrays that were drawn before the bucket."""
    return bucket.before

  def describe(self, bucket: Bucket) -> str:
    """Describes where the bucket lies in the data, in a few words."""
    return f"array {bucket.before['drawn']} of those that were drawn"

  def close(self) -> None:
    """Does nothing: there are no threads."""


def read_array(sites: Iterable[Site], x: jax.Array) -> Activations:
  """Takes an array [N, D] as one row of every site; all its tokens count."""
  return Activations(dict.fromkeys(sites, x[None]), jnp.ones((1, len(x))))
