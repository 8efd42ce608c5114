"""Figures of recovery are right for dictionaries computed by hand."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.comparison import recovery
from jaxsae.sae import Sae

G = 8
BIAS = jnp.arange(8.0) / 10
DIRECTIONS = jnp.linalg.qr(jax.random.normal(jax.random.key(0), (G, G)))[0]


@pytest.fixture(scope="module")
def samples():
  """Makes three batches of different sizes, in which each feature fires."""
  rng = np.random.default_rng(0)
  batches = []
  for n in (100, 50, 7):
    fires = rng.random((n, G)) < 0.4
    magnitudes = jnp.asarray(fires * rng.uniform(1, 2, (n, G)), jnp.float32)
    batches.append((magnitudes @ DIRECTIONS + BIAS[None, :], magnitudes))
  return batches


def dictionary(directions):
  """Makes an autoencoder of these directions, with a threshold of 0.5."""
  return Sae(
    w_enc=directions.T,
    b_enc=-(directions @ BIAS),
    w_dec=directions,
    b_dec=BIAS,
    threshold=jnp.full(len(directions), 0.5),
  )


def figures(sae, samples):
  return dataclasses.asdict(recovery.measure(sae, DIRECTIONS, samples))


def true_l0(samples):
  return np.mean(np.concatenate([np.sum(m > 0, axis=1) for _, m in samples]))


def near(value):
  return pytest.approx(value, abs=1e-5)


def test_the_features_themselves_are_perfect(samples):
  assert figures(dictionary(DIRECTIONS), samples) == {
    "mcc": near(1),
    "uniqueness": 1,
    "precision": 1,
    "recall": 1,
    "f1": 1,
    "l0": near(true_l0(samples)),
    "fvu": near(0),
    "dead": 0,
    "shrinkage": near(1),
  }


def test_the_order_and_the_length_of_directions_do_not_matter(samples):
  order = jax.random.permutation(jax.random.key(1), G)
  sae = dictionary(DIRECTIONS[order])
  # Latents a third as large, directions three times as long.
  sae = sae.replace(
    w_enc=sae.w_enc / 3,
    b_enc=sae.b_enc / 3,
    threshold=sae.threshold / 3,
    w_dec=3 * sae.w_dec,
  )
  found = figures(sae, samples)
  assert found == figures(dictionary(DIRECTIONS), samples) | {
    "mcc": near(1),
    "fvu": near(0),
    "shrinkage": near(1),
  }


def test_missing_latents_do_not_lower_the_figures_of_the_others(samples):
  found = figures(dictionary(DIRECTIONS[:4]), samples)
  assert found["mcc"] == near(1) and found["uniqueness"] == 1
  assert found["f1"] == 1 and found["dead"] == 0
  # The bias does not replace the mean of the missing features.
  assert 0.7 < found["fvu"] < 0.9 and found["shrinkage"] < 1


def test_half_of_the_latents_dead_halves_the_figures(samples):
  found = figures(dictionary(DIRECTIONS.at[4:].set(0)), samples)
  # A zero row has no best feature and is given the first.
  assert found["uniqueness"] == 0.5
  for name in ("mcc", "precision", "recall", "f1", "dead"):
    assert found[name] == near(0.5), name


def test_a_feature_found_twice_counts_once(samples):
  twice = DIRECTIONS.at[4:].set(DIRECTIONS[:4])
  found = figures(dictionary(twice), samples)
  assert found["mcc"] == near(0.5) and found["uniqueness"] == 0.5
  assert found["precision"] == found["recall"] == 1


def test_pairs_are_one_to_one_and_maximise_the_mean():
  """Pairing greedily, the largest first, would give (0.9 + 0.1) / 2."""
  similar = np.array([[0.9, 0.8], [0.7, 0.1]])
  assert recovery.matched(similar) == pytest.approx(0.75)
  assert recovery.matched(similar[:1]) == pytest.approx(0.9)
  assert recovery.matched(similar[:, :1]) == pytest.approx(0.9)


def test_the_sign_of_a_direction_does_not_matter():
  assert jnp.allclose(
    recovery.cosines(-DIRECTIONS, DIRECTIONS), jnp.eye(G), atol=1e-5
  )


def test_precision_and_recall_by_hand():
  """One latent fires on the first three samples, its feature on 2 to 5."""
  magnitudes = jnp.array([0.0, 1, 1, 1, 1, 0, 0, 0])[:, None]
  x = jnp.array([1.0, 1, 1, 0, 0, 0, 0, 0])[:, None]
  ones = jnp.ones((1, 1))
  sae = Sae(ones, jnp.zeros(1), ones, jnp.zeros(1), jnp.full(1, 0.5))
  batches = [(x[:3], magnitudes[:3]), (x[3:] + 0.1, magnitudes[3:])]
  found = recovery.measure(sae, ones, batches)
  assert found.precision == pytest.approx(2 / 3)
  assert found.recall == pytest.approx(2 / 4)
  assert found.f1 == pytest.approx(4 / 7)
  assert found.l0 == pytest.approx(3 / 8) and found.dead == 0
  # Errors are 0.1 on five samples; x is 1 three times and 0.1 five times.
  assert found.fvu == pytest.approx(0.05 / (3.05 - 3.5**2 / 8), rel=1e-5)
  assert found.r2 == 1 - found.fvu
  assert found.shrinkage == pytest.approx(3 / 8)


def test_a_latent_that_fires_for_another_feature_is_wrong(samples):
  sae = dictionary(DIRECTIONS)
  turned = sae.replace(
    w_enc=jnp.roll(sae.w_enc, 1, axis=1), b_enc=jnp.roll(sae.b_enc, 1)
  )
  found = figures(turned, samples)
  assert found["mcc"] == near(1) and found["f1"] < 0.6 and found["fvu"] > 0.5
