"""Packed rows of tokens, with what tells their documents apart."""

import jax
import numpy as np
from flax import struct

Array = jax.Array | np.ndarray


class TokenBatch(struct.PyTreeNode, kw_only=True):
  """Rows of tokens, each packed with segments of several documents.

  All arrays are int32 [B, T]: B rows of T tokens. The bucket of a training
  step is [M, B, T], with M microbatches. A JAX pytree, so it can be given to a
  compiled function, and `jax.device_put` puts it on devices.

  Attributes:
    documents: index of each token's document in `Corpus.documents`, -1 for
      padding; None where nobody asks.
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

  @property
  def packing(self) -> dict[str, Array]:
    """Keyword arguments of `capture`, `edit` and `Lm.logits` but the tokens."""
    return {"segments": self.segments, "positions": self.positions}
