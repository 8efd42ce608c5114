"""Packed rows of tokens, with what tells their documents apart."""

from typing import Generic, TypeVar

from flax import struct

from jaxsae.brief import fields

Array = TypeVar("Array")  # np.ndarray, jax.Array or jax.ShapeDtypeStruct


class TokenBatch(Generic[Array], struct.PyTreeNode, kw_only=True):
  """Rows of tokens, each packed with segments of several documents.

  All arrays are int32 [B, T]: B rows of T tokens. The bucket of a training
  step is [M, B, T], with M microbatches. A JAX pytree, so it can be given to a
  compiled function, and `jax.device_put` puts it on devices.

  Attributes:
    documents: index of each token's document in `Corpus.documents`, -1 for
      padding; None where it is not needed, as in training.
    positions: counted from 0 in each segment.
    segments: 1, 2, … in each row, and 0 for padding. A segment is as much of
      one document as the row holds; attention does not cross its ends.
    tokens: token ids.
  """

  # Compiled functions take the arrays in this order, so it is not to change.
  documents: Array | None = None
  positions: Array
  segments: Array
  tokens: Array

  __repr__ = fields

  @property
  def packing(self) -> dict[str, Array]:
    """Arguments that `capture`, `edit` and `Lm.logits` take beside tokens."""
    return {"segments": self.segments, "positions": self.positions}
