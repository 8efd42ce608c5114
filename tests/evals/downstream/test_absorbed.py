"""Absorption agrees with SAEBench's definitions on planted latents."""

import numpy as np
import pytest
from scipy import sparse

from jaxsae.evals.downstream.absorbed import absorption, main_count

# Latent 0 is the letter's own; 1, 2, 3 and 4 are aligned with it; 5 is not.
COSINES = np.array([0.8, 0.5, 0.4, 0.3, 0.2, 0.05, -0.6])


def one(latents, projection, main=(0,)):
  row = sparse.csr_matrix(np.array([latents], float))
  fraction, full = absorption(row, np.array([projection]), COSINES, main)
  return fraction[0], full[0]


@pytest.mark.parametrize(
  ("latents", "projection", "fraction", "full"),
  [
    # The main latent contributes all of the projection.
    ([10, 4, 0, 0, 0, 0, 0], 8, 0, False),
    # It is silent, and another contributes enough.
    ([0, 10, 0, 0, 0, 0, 0], 10, 1, True),
    # It is silent, and no other contributes 0.4 of the projection.
    ([0, 7, 0, 0, 0, 0, 0], 10, 0, False),
    # It contributes 4 of 10, and others 6: of what is missing, all.
    ([5, 12, 0, 0, 0, 0, 0], 10, 0.6, False),
    # Others contribute more than is missing.
    ([5, 40, 0, 0, 0, 0, 0], 10, 0.6, False),
    # Others contribute 5 of the 6 that are missing.
    ([5, 10, 0, 0, 0, 0, 0], 10, 5 / 9, False),
    # Only the three largest absorbers count: 1.5 + 1.6 + 1.5, not 0.4 more.
    ([0, 3, 4, 5, 2, 0, 0], 10, 1, False),
    ([5, 3, 4, 5, 2, 0, 0], 10, 4.6 / 8.6, False),
    # A latent of cosine 0.05 absorbs nothing, but may absorb all alone.
    ([0, 0, 0, 0, 0, 200, 0], 10, 0, True),
    # The probe says no.
    ([0, 10, 0, 0, 0, 0, 0], -1, 0, False),
    # Nothing is active.
    ([0, 0, 0, 0, 0, 0, 0], 10, 0, False),
  ],
)
def test_examples_by_hand(latents, projection, fraction, full):
  found = one(latents, projection)
  assert found[0] == pytest.approx(fraction)
  assert found[1] == full


def test_examples_agree_with_the_definition_written_out():
  rng = np.random.default_rng(0)
  x = rng.exponential(4, (400, 7)) * (rng.random((400, 7)) < 0.4)
  projections = rng.normal(5, 4, 400)
  fractions, full = absorption(
    sparse.csr_matrix(x), projections, COSINES, (0, 3)
  )
  for acts, p, fraction, is_full in zip(
    x, projections, fractions, full, strict=True
  ):
    contributed = acts * COSINES
    main = contributed[[0, 3]].sum()
    able = [
      contributed[j]
      for j in range(7)
      if j not in (0, 3) and COSINES[j] >= 0.1 and contributed[j] > 0
    ]
    rest = sum(sorted(able, reverse=True)[:3])
    if main >= p or rest / p < 0.4:
      expected = 0.0
    elif main <= 0:
      expected = 1.0
    else:
      expected = min(rest, p - main) / (min(rest, p - main) + main)
    assert fraction == pytest.approx(expected)
    top = np.argmax(contributed)
    assert is_full == (
      acts[0] == acts[3] == 0
      and COSINES[top] >= 0.025
      and p >= 0
      and contributed[top] / p >= 0.4
    )
  assert 0.1 < fractions.mean() < 0.9 and 0.02 < full.mean() < 0.9


@pytest.mark.parametrize(
  ("f1", "count"),
  [
    ([0.9], 1),
    ([0.5, 0.6, 0.7, 0.71], 3),
    ([0.5, 0.52, 0.9], 1),
    ([0.0, 0.0], 1),
  ],
)
def test_main_latents_are_counted_while_each_adds_enough(f1, count):
  assert main_count(f1) == count
