"""Figures of a probe on its test texts, with the interval of each.

Shapes: S seeds, N texts, G groups of texts, n test texts, R resamples.
"""

import dataclasses
from collections.abc import Sequence
from typing import Self

import numpy as np

RESAMPLES = 1000
_ENDS = (2.5, 97.5)  # percentiles of the resamples


@dataclasses.dataclass(frozen=True, eq=False)
class Estimate:
  """A figure, averaged over seeds, and the values that it has by chance.

  Attributes:
    by_seed: [S], the value for each seed.
    resampled: [R], the average over seeds on each resample of the test texts.
      Estimates of the same texts share resamples, so they can be subtracted.
  """

  by_seed: np.ndarray
  resampled: np.ndarray

  def __repr__(self) -> str:
    low, high = self.interval
    return f"Estimate({self.value:.3f}, 95% {low:.3f} to {high:.3f})"

  @property
  def value(self) -> float:
    """The mean over seeds."""
    return float(np.mean(self.by_seed))

  @property
  def interval(self) -> tuple[float, float]:
    """The bootstrap interval of 95% over test texts."""
    low, high = np.nanpercentile(self.resampled, _ENDS)
    return float(low), float(high)

  @property
  def spread(self) -> float | None:
    """The standard deviation over seeds; None for a single one."""
    if len(self.by_seed) < 2:
      return None
    return float(np.std(self.by_seed, ddof=1))

  def __sub__(self, other: Self) -> "Estimate":
    """Returns the difference on the same texts, seeds and resamples."""
    return Estimate(
      self.by_seed - other.by_seed, self.resampled - other.resampled
    )

  @classmethod
  def mean(cls, several: Sequence[Self]) -> "Estimate":
    """Returns the mean of estimates of different texts, for the same seeds."""
    return Estimate(
      np.mean([x.by_seed for x in several], axis=0),
      np.mean([x.resampled for x in several], axis=0),
    )

  def to_json(self) -> dict:
    """Returns the value, the ends of its interval and its spread."""
    low, high = self.interval
    return {
      "value": self.value,
      "low": low,
      "high": high,
      "spread_over_seeds": self.spread,
    }


@dataclasses.dataclass(frozen=True, eq=False)
class Scored:
  """What a probe says of its test texts.

  Attributes:
    texts: [n], their numbers.
    is_positive: [n], whether each is of the class.
    scores: [n]; above 0, the probe says that it is.
  """

  texts: np.ndarray
  is_positive: np.ndarray
  scores: np.ndarray


@dataclasses.dataclass(frozen=True)
class Score:
  """The accuracy of a probe, and the area under its ROC curve."""

  accuracy: Estimate
  auc: Estimate

  def __sub__(self, other: Self) -> "Score":
    return Score(self.accuracy - other.accuracy, self.auc - other.auc)

  @classmethod
  def mean(cls, several: Sequence[Self]) -> "Score":
    """Returns the mean of scores on different texts."""
    return Score(
      Estimate.mean([x.accuracy for x in several]),
      Estimate.mean([x.auc for x in several]),
    )

  def to_json(self) -> dict:
    """Returns the record for a file."""
    return {"accuracy": self.accuracy.to_json(), "auc": self.auc.to_json()}


def resample(groups: np.ndarray, count: int = RESAMPLES) -> np.ndarray:
  """Draws groups with replacement; returns how often each text is drawn.

  Args:
    groups: [N], the number of each text's group.
    count: R, the number of resamples.

  Returns:
    float32 [R, N]; the same for the same groups.
  """
  size = int(groups.max()) + 1
  drawn = np.random.default_rng(0).multinomial(size, [1 / size] * size, count)
  return drawn[:, groups].astype(np.float32)


def score(by_seed: Sequence[Scored], weights: np.ndarray) -> Score:
  """Returns the figures of one probe, trained with several seeds.

  Args:
    by_seed: what it says, for each seed.
    weights: [R, N], from `resample`.
  """
  found = []
  for measure in (_accuracy, _auc):
    once = np.ones((1, weights.shape[1]), np.float32)
    values = [measure(one, once)[0] for one in by_seed]
    samples = [measure(one, weights) for one in by_seed]
    found.append(Estimate(np.array(values), np.mean(samples, axis=0)))
  return Score(*found)


def _accuracy(scored: Scored, weights: np.ndarray) -> np.ndarray:
  """Returns the share of right answers under each row of weights, [R]."""
  right = (scored.scores > 0) == scored.is_positive
  own = weights[:, scored.texts].astype(np.float64)
  return own @ right / _nonzero(own.sum(axis=1))


def _auc(scored: Scored, weights: np.ndarray) -> np.ndarray:
  """Returns the area under the ROC curve under each row of weights, [R].

  It is the share of pairs of a positive and a negative text in which the
  positive one has the higher score; of ties, half count.
  """
  yes = scored.is_positive
  a, b = scored.scores[yes, None], scored.scores[None, ~yes]
  wins = (a > b) + 0.5 * (a == b)
  of_yes = weights[:, scored.texts[yes]]
  of_no = weights[:, scored.texts[~yes]]
  won = np.sum(of_yes @ wins.astype(np.float32) * of_no, axis=1)
  pairs = of_yes.sum(axis=1) * of_no.sum(axis=1)
  return won / _nonzero(pairs)


def _nonzero(total: np.ndarray) -> np.ndarray:
  """Makes an average of nothing NaN, without a warning."""
  return np.where(total > 0, total, np.nan)
