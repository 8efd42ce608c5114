"""Known features: firing, correlations, magnitudes and directions."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.comparison import features as known
from jaxsae.errors import UserError

pytestmark = pytest.mark.slow

SMALL = known.Settings(features=64, width=16, roots=2, depth=2, rank=4)
INDEPENDENT = dataclasses.replace(SMALL, roots=0, correlation=0.0)
N = 20_000


@pytest.fixture(scope="module")
def features():
  return known.make(jax.random.key(0), SMALL)


@pytest.fixture(scope="module")
def drawn(features):
  return known.draw(features, jax.random.key(1), N)


def change(**fields):
  return known.make(jax.random.key(0), dataclasses.replace(SMALL, **fields))


def frequencies(features):
  _, magnitudes = known.draw(features, jax.random.key(1), N)
  return np.mean(magnitudes > 0, axis=0)


def test_features_and_samples_depend_on_the_key(features, drawn):
  again = known.make(jax.random.key(0), SMALL)
  jax.tree.map(np.testing.assert_array_equal, features, again)
  x, _ = known.draw(again, jax.random.key(1), N)
  np.testing.assert_array_equal(x, drawn[0])
  other, _ = known.draw(features, jax.random.key(2), N)
  # Where nothing fires x is the bias, whatever the key.
  assert np.mean(np.all(other == x, axis=-1)) < 0.5
  assert not np.allclose(known.make(jax.random.key(1), SMALL).bias, again.bias)


def test_activations_are_magnitudes_times_directions_plus_bias(features, drawn):
  x, magnitudes = map(np.asarray, drawn)
  assert x.shape == (N, 16) and magnitudes.shape == (N, 64)
  directions, bias = map(np.asarray, (features.directions, features.bias))
  expected = magnitudes @ directions + bias
  np.testing.assert_allclose(x, expected, rtol=1e-4, atol=1e-4)
  np.testing.assert_allclose(np.linalg.norm(bias), 0.5, rtol=1e-5)


def test_probabilities_fall_as_a_power_between_their_ends():
  p = np.asarray(known.zipf(SMALL))
  np.testing.assert_allclose(p[[0, -1]], [0.4, 5e-4], rtol=1e-5)
  fall = np.arange(1, 65) ** -0.5
  np.testing.assert_allclose(np.corrcoef(p, fall)[0, 1], 1, rtol=1e-6)


def test_independent_features_fire_with_their_probability():
  features = known.make(jax.random.key(0), INDEPENDENT)
  p = np.asarray(features.probability)
  off = (frequencies(features) - p) / np.sqrt(p * (1 - p) / N)
  assert np.max(np.abs(off)) < 5 and np.std(off) < 1.4


def test_a_child_fires_only_with_its_parent_and_without_siblings(drawn):
  fires = np.asarray(drawn[1] > 0)
  assert [g.stop for g in SMALL.generations] == [2, 10, 42]
  for parents, children in SMALL.families:
    families = fires[:, children].reshape(N, -1, SMALL.branching)
    together = np.sum(families, axis=-1)
    assert np.max(together) == 1
    assert not np.any(together[~fires[:, parents]])
    assert np.all(np.any(families, axis=0)), "each child has its turn"


def test_features_in_no_tree_keep_siblings(drawn):
  loose = np.asarray(drawn[1] > 0)[:, SMALL.generations[-1].stop :]
  assert loose.shape[1] == 22 and np.max(np.sum(loose, axis=-1)) > 1


def test_rare_children_fire_with_their_probability():
  """Holds for children far rarer than their parents (first order)."""
  rare = dataclasses.replace(
    SMALL, correlation=0.0, depth=1, exponent=2.0, least=0.005, most=0.5
  )
  features = known.make(jax.random.key(0), rare)
  children = rare.generations[1]
  p = np.asarray(features.probability)[children]
  found = frequencies(features)[children]
  np.testing.assert_allclose(np.mean(found / p), 1, atol=0.1)
  uncompensated = features.replace(
    cut=-jax.scipy.special.ndtri(features.probability)
  )
  assert np.mean(frequencies(uncompensated)[children] / p) < 0.5


def test_a_childs_magnitude_is_scaled_by_its_parents():
  features = change(std_mean=0.0, std_std=0.0, depth=1, correlation=0.0)
  features = features.replace(std=features.std.at[:2].set(1.0))
  _, magnitudes = known.draw(features, jax.random.key(1), N)
  magnitudes, mean = np.asarray(magnitudes), np.asarray(features.mean)
  for child in range(2, 10):
    parent = (child - 2) // SMALL.branching
    fires = magnitudes[:, child] > 0
    strength = magnitudes[fires, parent] / mean[parent]
    assert np.std(strength) > 0.1
    np.testing.assert_allclose(
      magnitudes[fires, child], mean[child] * strength, rtol=1e-5
    )


def test_magnitudes_have_their_means_and_deviations():
  features = change(roots=0, least=0.3)
  _, magnitudes = map(np.asarray, known.draw(features, jax.random.key(1), N))
  fires = magnitudes > 0
  for feature in range(64):
    seen = magnitudes[fires[:, feature], feature]
    std = float(features.std[feature])
    error = 5 * std / np.sqrt(len(seen))
    assert abs(np.mean(seen) - features.mean[feature]) < error + 0.01
    assert abs(np.std(seen) - std) < error + 0.01
  np.testing.assert_allclose(features.mean[jnp.array([0, -1])], [5, 4])


def test_common_causes_make_features_fire_together():
  strong = change(roots=0, correlation=0.4, least=0.1)
  expected = np.asarray(strong.causes @ strong.causes.T)
  _, magnitudes = known.draw(strong, jax.random.key(1), N)
  found = np.corrcoef(np.asarray(magnitudes > 0).T)
  above = np.triu_indices(64, 1)
  assert np.corrcoef(expected[above], found[above])[0, 1] > 0.9
  independent = known.make(jax.random.key(0), INDEPENDENT)
  _, magnitudes = known.draw(independent, jax.random.key(1), N)
  assert np.std(np.corrcoef(np.asarray(magnitudes > 0).T)[above]) < 0.01


def test_no_feature_is_all_common_cause():
  features = change(correlation=3.0)
  explained = np.sum(np.square(features.causes), axis=-1)
  assert np.max(explained) <= 1 - known.LEAST_OWN + 1e-5
  assert np.all(np.isfinite(known.draw(features, jax.random.key(1), 8)[0]))


@pytest.mark.parametrize("count, least", [(12, 0), (64, 64 * 64 / 16 - 64)])
def test_directions_spread_as_far_as_they_can(count, least):
  """`least` is Welch's bound on Σ_{i≠j} cos², far below random directions."""
  start = jax.random.normal(jax.random.key(0), (count, SMALL.width))
  squares = []
  for steps in (0, 10, 100, 1000):
    settings = dataclasses.replace(SMALL, spreading_steps=steps)
    w = np.asarray(known.spread(settings, start))
    np.testing.assert_allclose(np.linalg.norm(w, axis=-1), 1, rtol=1e-5)
    squares.append(np.sum(np.square(w @ w.T)) - count)
  assert squares[0] > squares[1] > squares[2] and squares[0] > least + 5
  assert squares[3] < 1.001 * least + 1e-3


def test_the_published_size_has_the_published_shapes():
  make = lambda key: known.make(key, known.Settings())
  features = jax.eval_shape(make, jax.random.key(0))
  assert features.directions.shape == (16_384, 768)
  assert known.Settings().generations[-1].stop == 128 * (1 + 4 + 16 + 64)
  x, magnitudes = jax.eval_shape(
    lambda f, k: known.draw(f, k, 1024), features, jax.random.key(0)
  )
  assert x.shape == (1024, 768) and magnitudes.shape == (1024, 16_384)


@pytest.mark.parametrize(
  "fields, message",
  [
    ({"depth": 3}, "The trees need 170 features and there are 64; lower"),
    ({"least": 0.5}, "least=0.5 and most=0.4 are not probabilities in order"),
    ({"most": 1.5}, "least=0.0005 and most=1.5 are not"),
  ],
)
def test_impossible_settings_are_an_error(fields, message):
  with pytest.raises(UserError, match=message):
    dataclasses.replace(SMALL, **fields)
