"""Cosines of directions agree with NumPy's, and planted partners are found."""

import numpy as np
import pytest

from jaxsae.evals import agreement
from jaxsae.evals import directions as module
from jaxsae.evals.directions import interference, largest_cosines
from tests.evals.samples import random_sae


def cosines(a, b):
  unit = lambda x: x / np.linalg.norm(x, axis=1, keepdims=True)
  return unit(np.asarray(a, np.float64)) @ unit(np.asarray(b, np.float64)).T


@pytest.mark.parametrize("at_once", [1, 100, 10**6])
def test_the_largest_cosines_are_numpys(monkeypatch, at_once):
  monkeypatch.setattr(module, "_AT_ONCE", at_once)
  one, other = random_sae(16, 30, 0), random_sae(16, 50, 1)
  found = largest_cosines(one, other, [3, 29, 0])
  expected = cosines(one.w_dec, other.w_dec)[[3, 29, 0]].max(axis=1)
  np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_latent_does_not_interfere_with_itself():
  sae = random_sae(16, 30, 0)
  all_of_them = cosines(sae.w_dec, sae.w_dec)
  np.fill_diagonal(all_of_them, -1)
  expected = all_of_them.max(axis=1).mean()
  assert interference(sae) == pytest.approx(expected, abs=1e-6)
  orthogonal = sae.replace(w_dec=np.eye(16, dtype=np.float32))
  assert interference(orthogonal) == pytest.approx(0, abs=1e-6)


def test_of_many_latents_some_are_drawn(monkeypatch):
  sae = random_sae(16, 300, 0)
  every = interference(sae)
  monkeypatch.setattr(module, "_MOST", 100)
  some = interference(sae)
  assert some != every
  assert some == pytest.approx(every, abs=0.03)
  assert interference(sae) == some


def test_partners_are_found_in_any_order_and_by_density():
  one = random_sae(64, 40, 0)
  w_dec = np.array(one.w_dec)[::-1].copy()
  w_dec[:10] = np.random.default_rng(1).normal(size=(10, 64))  # of 30 … 39
  other = one.replace(w_dec=7 * w_dec)
  density = np.repeat([0.2, 0.03, 0.0], [20, 10, 10])
  found = agreement(one, other, density)
  assert (found.latents, found.above_0_7, found.above_0_9) == (40, 0.75, 0.75)
  assert found.by_density == {
    "1e-1 to 1e0": (20, 1, 1),
    "1e-2 to 1e-1": (10, 1, 1),
    "dead": (10, 0, 0),
  }


def test_a_partner_at_a_cosine_of_four_fifths_is_above_one_bound_only():
  one = random_sae(4, 2, 0).replace(w_dec=np.eye(2, 4, dtype=np.float32))
  w_dec = np.zeros((2, 4), np.float32)
  w_dec[0, [0, 3]] = 0.8, 0.6
  w_dec[1, 1] = 1
  found = agreement(one, one.replace(w_dec=w_dec))
  assert (found.above_0_7, found.above_0_9) == (1, 0.5)
