"""Intervals cover what they should, and are those of a bootstrap."""

import numpy as np
import pytest

from jaxsae.evals import intervals as module
from jaxsae.evals.intervals import intervals, standard_error


def corpora(number, documents, rng):
  """Sums and token counts of documents that differ, [corpora, documents]."""
  tokens = rng.integers(1, 40, (number, documents))
  level = rng.normal(0.5, 1, (number, documents))  # of each document
  return tokens * level, tokens


def test_nineteen_in_twenty_intervals_cover_the_true_ratio():
  rng = np.random.default_rng(0)
  pairs = zip(*corpora(300, 100, rng), strict=True)
  found = [intervals({"x": pair})["x"] for pair in pairs]
  assert 0.91 <= np.mean([low <= 0.5 <= high for low, high in found]) <= 0.98


def test_the_width_is_that_of_the_standard_error():
  rng = np.random.default_rng(1)
  (sums,), (tokens,) = corpora(1, 400, rng)
  low, high = intervals({"x": (sums, tokens)})["x"]
  error = standard_error(sums, tokens)
  assert (high - low) / 2 == pytest.approx(1.96 * error, rel=0.1)
  assert low < sums.sum() / tokens.sum() < high


def test_it_is_a_bootstrap_over_documents():
  rng = np.random.default_rng(2)
  sums, tokens = rng.normal(size=7), rng.integers(1, 9, 7)
  drawn = rng.integers(0, 7, (20_000, 7))
  ratios = sums[drawn].sum(1) / tokens[drawn].sum(1)
  expected = np.quantile(ratios, [0.025, 0.975])
  found = intervals({"x": (sums, tokens)})["x"]
  np.testing.assert_allclose(found, expected, atol=0.35 * ratios.std())


def test_memory_does_not_change_them(monkeypatch):
  rng = np.random.default_rng(3)
  pair = (rng.normal(size=50), np.ones(50))
  whole = intervals({"x": pair})
  monkeypatch.setattr(module, "_AT_ONCE", 333)
  assert intervals({"x": pair}) == whole


def test_every_ratio_sees_the_same_documents():
  sums, tokens = np.random.default_rng(4).normal(size=(2, 30)) ** 2
  found = intervals({"x": (sums, tokens), "y": (3 * sums, tokens)})
  np.testing.assert_allclose(found["y"], 3 * np.array(found["x"]))


@pytest.mark.parametrize(
  "numerator, denominator",
  [([1.0], [1.0]), ([1.0, 2.0], [0.0, 0.0]), ([1.0, 2.0], [5.0, -4.0])],
)
def test_what_is_not_defined_has_none(numerator, denominator):
  found = intervals({"x": (np.array(numerator), np.array(denominator))})
  assert np.isnan(found["x"]).all()
  assert intervals({}) == {}


def test_the_standard_error_is_that_of_a_mean_over_documents():
  means = np.array([1.0, 4.0, 2.0, 9.0])
  alike = standard_error(5 * means, np.full(4, 5))
  assert alike == pytest.approx(means.std(ddof=1) / 2)
  padded = standard_error(np.append(5 * means, 0), np.append(np.full(4, 5), 0))
  assert padded == alike
  assert standard_error(np.ones(1), np.ones(1)) == np.inf


def test_the_standard_error_covers_ratios_of_uneven_documents():
  rng = np.random.default_rng(0)
  counts = rng.integers(1, 50, (2000, 30))
  sums = counts * rng.normal(0.3, 1, counts.shape)
  ratios = sums.sum(1) / counts.sum(1)
  errors = [standard_error(*both) for both in zip(sums, counts, strict=True)]
  assert np.mean(errors) == pytest.approx(ratios.std(), rel=0.1)
