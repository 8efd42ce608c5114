"""Intervals of ratios of sums, by a bootstrap over documents.

Documents are drawn with replacement, as many as there are, and the ratio is
formed anew; that is done `DRAWS` times. The interval has the middle 95 % of
what comes out (Efron and Tibshirani 1993, §13: percentile intervals).
"""

import math
from collections.abc import Mapping
from typing import TypeVar

import numpy as np

DRAWS = 1000
SHARE = 0.95
_AT_ONCE = 2**24  # numbers of draws × documents that are in memory

Ratio = tuple[np.ndarray, np.ndarray]
Interval = tuple[float, float]
Key = TypeVar("Key")
NONE: Interval = (math.nan, math.nan)


def intervals(ratios: Mapping[Key, Ratio]) -> dict[Key, Interval]:
  """Returns the 95 % interval of each ratio Σ numerator / Σ denominator.

  The same documents are drawn for all of them, and in every process.

  Args:
    ratios: name → numerator and denominator of every document, [documents]
      each; all ratios have the same documents.

  Returns:
    Name → lower and upper end; NaN for fewer than two documents, or where a
    denominator may be 0 or negative.
  """
  both = np.array(list(ratios.values()), np.float64)  # [ratios, 2, documents]
  if not ratios or both.shape[-1] < 2:
    return dict.fromkeys(ratios, NONE)
  drawn = np.concatenate(
    [both @ draws.T for draws in _draws(both.shape[-1])], -1
  )
  numerators, denominators = drawn[:, 0], drawn[:, 1]
  found = numerators / np.where(denominators > 0, denominators, 1)
  ends = np.quantile(found, [(1 - SHARE) / 2, (1 + SHARE) / 2], axis=-1)
  ends[:, (denominators <= 0).any(axis=-1)] = math.nan
  return dict(zip(ratios, map(tuple, ends.T.tolist()), strict=True))


def _draws(documents: int):
  """Yields how often each document is drawn, [some draws, documents]."""
  rng = np.random.default_rng(0)
  some = max(1, _AT_ONCE // documents)
  for start in range(0, DRAWS, some):
    draws = min(some, DRAWS - start)
    shares = np.full(documents, 1 / documents)
    yield rng.multinomial(documents, shares, size=draws).astype(np.float64)


def standard_error(sums: np.ndarray, counts: np.ndarray) -> float:
  """Returns the standard error of Σ sums / Σ counts over documents.

  Args:
    sums: the sum of each document.
    counts: its number of tokens; documents with none are left out.

  Returns:
    The standard error of a ratio of means; infinite for fewer than two
    documents.
  """
  sums, counts = sums[counts > 0], counts[counts > 0]
  documents = len(counts)
  if documents < 2:
    return math.inf
  rest = sums - sums.sum() / counts.sum() * counts
  spread = math.sqrt(documents / (documents - 1) * float(rest @ rest))
  return spread / float(counts.sum())
