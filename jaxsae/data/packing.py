"""Packs documents of any length into rows of exactly T tokens.

Documents follow one another; where a row ends inside one, the next row
continues it as a new segment with its own BOS. A single free place at the end
of a row is padding, because a BOS without text teaches nothing.

Shapes: G segments, R rows, T tokens in a row.
"""

from array import array
from dataclasses import dataclass

import numpy as np

from jaxsae.token_batch import TokenBatch


@dataclass(frozen=True)
class RowTable:
  """Table of the segments that make up each row."""

  documents: np.ndarray  # [G] int64, the document of each segment
  starts: np.ndarray  # [G] int64, index of its first token in the store
  lengths: np.ndarray  # [G] int64, number of its tokens, without BOS
  rows: np.ndarray  # [R + 1] int64, the first segment of each row
  context: int  # T

  def __len__(self) -> int:
    return len(self.rows) - 1

  @property
  def tokens(self) -> int:
    """Tokens in all rows, BOS included, padding not."""
    return int(self.lengths.sum()) + len(self.lengths)

  @property
  def padding(self) -> float:
    """Share of all places that hold no token."""
    return 1 - self.tokens / max(1, len(self) * self.context)


def pack(order: np.ndarray, offsets: np.ndarray, context: int) -> RowTable:
  """Packs documents, in the given order, into rows of `context` tokens.

  Args:
    order: document indices, each at most once.
    offsets: [n + 1] where document i has tokens offsets[i] to offsets[i + 1].
    context: T, tokens in a row, at least 2.
  """
  # Compact arrays: a corpus may have many millions of segments.
  documents, starts, lengths = array("q"), array("q"), array("q")
  rows, free = array("q", [0]), context
  begins, ends = offsets[order].tolist(), offsets[order + 1].tolist()
  for document, start, end in zip(order.tolist(), begins, ends, strict=True):
    while start < end:
      if free < 2:
        rows.append(len(starts))
        free = context
      length = min(end - start, free - 1)
      documents.append(document)
      starts.append(start)
      lengths.append(length)
      start += length
      free -= length + 1
  if len(starts) > rows[-1]:
    rows.append(len(starts))
  return RowTable(
    documents=np.array(documents, np.int64),
    starts=np.array(starts, np.int64),
    lengths=np.array(lengths, np.int64),
    rows=np.array(rows, np.int64),
    context=context,
  )


def empty_batch(rows: int, context: int) -> TokenBatch[np.ndarray]:
  """Makes a batch of padding, int32 [rows, context] each."""
  shape = (rows, context)
  return TokenBatch(
    documents=np.full(shape, -1, np.int32),
    positions=np.zeros(shape, np.int32),
    segments=np.zeros(shape, np.int32),
    tokens=np.zeros(shape, np.int32),
  )


def fill_row(
  batch: TokenBatch[np.ndarray],
  place: int,
  table: RowTable,
  row: int,
  store_tokens: np.ndarray,
  bos: int,
) -> None:
  """Writes row `row` of the table into row `place` of an `empty_batch`."""
  assert batch.documents is not None
  at = 0
  first, last = table.rows[row : row + 2]
  for segment in range(first, last):
    start, length = table.starts[segment], table.lengths[segment]
    here = slice(at, at + length + 1)
    text = store_tokens[start : start + length]
    batch.tokens[place, at] = bos
    batch.tokens[place, at + 1 : here.stop] = text
    batch.segments[place, here] = segment - first + 1
    batch.positions[place, here] = np.arange(length + 1)
    batch.documents[place, here] = table.documents[segment]
    at = here.stop
