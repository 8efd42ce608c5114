"""Intervals cover what they say, and estimates combine."""

import numpy as np
import pytest

from jaxsae.evals.downstream.estimate import (
  Estimate,
  Score,
  Scored,
  resample,
  score,
)


def scored(n, seed, accuracy=0.8):
  rng = np.random.default_rng(seed)
  is_positive = rng.random(n) < 0.5
  right = rng.random(n) < accuracy
  sign = np.where(is_positive == right, 1, -1)
  return Scored(np.arange(n), is_positive, sign * rng.random(n))


def test_the_interval_is_that_of_a_share():
  one = scored(500, 0)
  found = score([one], resample(np.arange(500))).accuracy
  low, high = found.interval
  p = found.value
  error = np.sqrt(p * (1 - p) / 500)
  assert low == pytest.approx(p - 1.96 * error, abs=0.006)
  assert high == pytest.approx(p + 1.96 * error, abs=0.006)
  assert found.spread is None


def test_weighted_auc_is_that_of_texts_drawn_so_often():
  one, times = scored(60, 1), resample(np.arange(60), 5)
  found = score([one], times).auc.resampled
  for weights, value in zip(times, found, strict=True):
    drawn = np.repeat(np.arange(60), weights.astype(int))
    scores, yes = one.scores[drawn], one.is_positive[drawn]
    above = np.sign(scores[yes][:, None] - scores[~yes][None])
    assert value == pytest.approx(np.mean(above / 2 + 0.5))


def test_texts_of_one_group_are_drawn_together():
  groups = np.repeat(np.arange(20), 3)
  weights = resample(groups).reshape(-1, 20, 3)
  assert (weights == weights[:, :, :1]).all()
  assert (weights[:, :, 0].sum(axis=1) == 20).all()


def test_groups_that_agree_widen_the_interval():
  groups = np.repeat(np.arange(20), 25)
  right = np.repeat(np.random.default_rng(0).random(20) < 0.7, 25)
  yes = np.arange(500) % 2 == 0
  one = Scored(np.arange(500), yes, np.where(yes == right, 1.0, -1.0))
  widths = [
    np.diff(score([one], resample(of)).accuracy.interval)[0]
    for of in (np.arange(500), groups)
  ]
  assert widths[1] > 3 * widths[0]


def test_seeds_are_averaged_and_their_spread_is_given():
  every = [scored(200, seed) for seed in range(4)]
  weights = resample(np.arange(200))
  found = score(every, weights).accuracy
  alone = [score([one], weights).accuracy for one in every]
  values = [one.value for one in alone]
  assert found.value == pytest.approx(np.mean(values))
  assert found.spread == pytest.approx(np.std(values, ddof=1))
  mean = np.mean([one.resampled for one in alone], axis=0)
  np.testing.assert_allclose(found.resampled, mean)


def test_the_difference_of_alike_probes_is_nothing():
  weights = resample(np.arange(200))
  found = score([scored(200, 0)], weights)
  nothing = found - found
  assert nothing.accuracy.value == 0
  assert nothing.auc.interval == (0, 0)


def test_the_mean_over_tasks_is_less_uncertain():
  every = [
    score([scored(200, seed)], resample(np.arange(200))) for seed in (0, 1)
  ]
  joined = Score.mean(every)
  values = [one.accuracy.value for one in every]
  assert joined.accuracy.value == pytest.approx(np.mean(values))
  json = joined.to_json()["accuracy"]
  assert json["low"] < json["value"] < json["high"]


def test_an_undefined_resample_is_left_out():
  found = Estimate(np.array([0.5]), np.array([np.nan, 0.4, 0.6]))
  assert 0.4 < found.interval[0] < found.interval[1] < 0.6
