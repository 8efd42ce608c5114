"""Near-duplicates among the contexts of a latent.

Shapes: F latents, K contexts of a latent, W tokens of a context.
"""

import numpy as np

_BINS = 512
_SHARE = 0.6
_MAX_PAIRS = 2**19  # of contexts, in memory at a time


def near_duplicates(tokens: np.ndarray, peak: int) -> np.ndarray:
  """Finds pairs of contexts that differ in little, bool [F, K, K].

  Two contexts are near-duplicates if they share most of their pairs of
  neighbouring tokens, wherever these are. The token at the peak counts like a
  pair, so that contexts of one token can be compared. Pairs are compared by a
  hash; of 32 in unrelated contexts it makes about two equal.

  Args:
    tokens: ids, int32 [F, K, W], or -1 where there is no token.
    peak: the index in W of the strongest token.
  """
  latents = max(1, _MAX_PAIRS // max(1, tokens.shape[1] ** 2))
  blocks = [
    _compare(_pairs(tokens[at : at + latents], peak))
    for at in range(0, len(tokens), latents)
  ]
  return np.concatenate(blocks)


def _pairs(tokens, peak):
  """Marks the bins of each context's pairs, as bits, uint64 [F, K, bins/64]."""
  first, second = tokens[..., :-1], tokens[..., 1:]
  bins = np.where((first < 0) | (second < 0), _BINS, _hashed(first, second))
  alone = tokens[..., peak, None]
  alone = np.where(alone < 0, _BINS, _hashed(alone, alone + 1))
  marks = np.zeros((*tokens.shape[:2], _BINS + 1), bool)
  np.put_along_axis(marks, np.concatenate([bins, alone], axis=-1), 1, axis=-1)
  return np.packbits(marks[..., :_BINS], axis=-1).view(np.uint64)


def _hashed(first, second):
  bits = first.astype(np.uint64) * 0x9E3779B97F4A7C15
  bits = (bits ^ (bits >> 29)) + second.astype(np.uint64)
  return ((bits * 0xBF58476D1CE4E5B9) >> 55).astype(np.int64)


def _compare(marks):
  shared = _count(marks[:, None] & marks[:, :, None])
  size = _count(marks)
  least = _SHARE * (size[:, None] + size[:, :, None]) / 2
  return (shared > 0) & (shared >= least)


def _count(bits):
  return np.bitwise_count(bits).sum(axis=-1, dtype=np.int32)
