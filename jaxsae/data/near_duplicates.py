"""Finds how much of the held-out text is trained on too, nearly word by word.

Texts that are equal are dropped, but copies with small changes can lie on both
sides of the split. Two documents share a passage if they have the same run of
`RUN` tokens; runs are compared by their hashes.
"""

from dataclasses import dataclass

import numpy as np

RUN = 16  # tokens
DOCUMENTS = 256  # held-out documents that are looked at, at most
_OF_ONE = 4096  # tokens of each that are looked at, at most
_TOKENS = 2**24  # of the training text that are looked at, at most
_PIECE = 2**20  # tokens at a time
_BITS = 22  # of a hash, by which most runs are told apart quickly


@dataclass(frozen=True)
class NearDuplicates:
  """Held-out documents most of whose passages are in training documents.

  Attributes:
    found: their number.
    looked_at: the number of held-out documents that were looked at.
    share: the share of the whole text in which their passages were sought.
  """

  found: int
  looked_at: int
  share: float


def near_duplicates(
  tokens: np.ndarray, offsets: np.ndarray, held_out: np.ndarray
) -> NearDuplicates:
  """Counts near-duplicates of training documents among those held out.

  Time and memory are bounded: both sides are sampled evenly.

  Args:
    tokens: [all tokens] of all documents.
    offsets: [n + 1] where document i has tokens offsets[i] to offsets[i + 1].
    held_out: indices of the documents that are held out; all others are
      trained on.
  """
  runs, owners = _runs_of_sample(tokens, offsets, held_out)
  if not len(runs):
    return NearDuplicates(0, 0, 1.0)
  known, place = np.unique(runs, return_inverse=True)
  is_held = np.zeros(len(offsets) - 1, bool)
  is_held[held_out] = True
  found = np.zeros(len(known), bool)
  for start in _starts(len(tokens)):
    found |= _found_in_piece(tokens, offsets, is_held, start, known)
  every = np.bincount(owners)
  shared = np.bincount(owners, found[place])
  share = min(1.0, _TOKENS / max(1, len(tokens)))
  return NearDuplicates(
    int((shared > every / 2).sum()), int((every > 0).sum()), share
  )


def _runs_of_sample(
  tokens: np.ndarray, offsets: np.ndarray, held_out: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Returns the hashes of the sample's runs, and the document of each."""
  evenly = np.linspace(0, len(held_out) - 1, min(DOCUMENTS, len(held_out)))
  found = []
  for document in held_out[evenly.astype(np.int64)]:
    start, end = offsets[document : document + 2]
    found.append(np.unique(_hashes(tokens[start : min(end, start + _OF_ONE)])))
  owners = np.repeat(np.arange(len(found)), [len(runs) for runs in found])
  return np.concatenate([*found, np.empty(0, np.uint64)]), owners


def _starts(count: int) -> list[int]:
  """Returns where pieces of a text start that are spread evenly over it."""
  pieces = -(-count // _PIECE)
  most = _TOKENS // _PIECE
  evenly = np.linspace(0, pieces - 1, min(pieces, most)).astype(np.int64)
  return (evenly * _PIECE).tolist()


def _found_in_piece(
  tokens: np.ndarray,
  offsets: np.ndarray,
  is_held: np.ndarray,
  start: int,
  known: np.ndarray,
) -> np.ndarray:
  """Returns which known runs begin in a piece's training documents."""
  runs = _hashes(tokens[start : start + _PIECE + RUN - 1])
  owners = np.arange(start, start + len(runs))
  first, last = np.searchsorted(offsets, [start, start + len(runs)], "right")
  # The documents that begin or go on here, and how many runs begin in each.
  ends = np.clip(offsets[first : last + 1], start, start + len(runs))
  counts = np.diff([start, *ends])
  held = np.repeat(is_held[first - 1 : first - 1 + len(counts)], counts)
  trained = runs[: len(held)][~held[: len(owners)]]
  some = np.zeros(2**_BITS, bool)
  some[known >> np.uint64(64 - _BITS)] = True
  trained = trained[some[trained >> np.uint64(64 - _BITS)]]
  return np.isin(known, trained)


def _hashes(tokens: np.ndarray) -> np.ndarray:
  """Returns the hash of each run of `RUN` tokens; empty if there is none."""
  if len(tokens) < RUN:
    return np.empty(0, np.uint64)
  # Each pass doubles the length: 1, 2, 4, … tokens from every place.
  hashes, length = _mixed(tokens.astype(np.uint64)), 1
  while length < RUN:
    left, right = hashes[:-length], hashes[length:]
    hashes = _mixed(left * np.uint64(0x9E3779B97F4A7C15) + right)
    length *= 2
  return hashes


def _mixed(values: np.ndarray) -> np.ndarray:
  """Spreads the differences between numbers over all their bits."""
  values = values * np.uint64(0xBF58476D1CE4E5B9)
  return values ^ (values >> np.uint64(31))
