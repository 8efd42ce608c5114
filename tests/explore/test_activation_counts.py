"""Histograms counted in one pass agree with NumPy's two passes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsae.explore.activation_counts import (
  add_activations,
  histogram,
  no_activations,
)

LATENTS, DEAD = 7, 3
TOKENS, BINS = 300, 20


def make_latents(seed=0):
  """Makes sparse latents [B, T, F], very unequal and growing over the text."""
  rng = np.random.default_rng(seed)
  latents = rng.gamma(2.0, 1.0, (TOKENS // 10, 10, LATENTS))
  latents *= rng.random(latents.shape) < 0.3
  latents *= 10.0 ** rng.integers(-9, 9, LATENTS)
  latents *= np.exp(np.linspace(0, rng.uniform(0, 8), len(latents)))[
    :, None, None
  ]
  latents[..., DEAD] = 0
  return latents.astype("f4")


def count(latents, rows):
  """Counts all latents, in batches of `rows` rows."""
  counts, add = no_activations(LATENTS), jax.jit(add_activations)
  for at in range(0, len(latents), rows):
    counts = add(counts, jnp.asarray(latents[at : at + rows]))
  return counts


@pytest.mark.parametrize("rows", [1, 6, 30])
def test_the_maximum_and_how_often_a_latent_fires_are_exact(rows):
  latents = make_latents()
  counts = count(latents, rows)
  np.testing.assert_array_equal(counts.maximum, latents.max((0, 1)))
  fires = (latents > 0).sum((0, 1))
  np.testing.assert_array_equal(counts.above[:, 0], fires)
  np.testing.assert_array_equal(histogram(counts, BINS).sum(1), fires)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("rows", [1, 6, 30])
def test_a_token_moves_by_less_than_a_32nd_of_the_maximum(rows, seed):
  latents = make_latents(seed)
  counts = histogram(count(latents, rows), BINS)
  assert (counts >= 0).all()
  for latent in range(LATENTS):
    values = np.float64(latents[..., latent].ravel())
    edges = np.arange(BINS) / BINS
    shares = values / (values.max() or 1)
    above = counts[latent, ::-1].cumsum()[::-1]
    slack = 1 / 32 + 1e-6
    for edge, number in zip(edges[1:], above[1:], strict=True):
      assert (shares > edge + slack).sum() <= number
      assert number <= (shares > edge - slack).sum()


def test_batches_do_not_matter():
  latents = make_latents()
  for rows in (1, 6):
    jax.tree.map(
      np.testing.assert_array_equal, count(latents, rows), count(latents, 30)
    )


def test_a_maximum_that_is_a_power_of_two_is_counted():
  latents = jnp.array([0.25, 0.5, 0.5, 1.0]).reshape(1, 4, 1)
  counts = jax.jit(add_activations)(no_activations(1), latents)
  assert histogram(counts, 4).tolist() == [[1, 2, 0, 1]]


def test_a_latent_that_never_fires_has_an_empty_histogram():
  counts = count(make_latents(), 6)
  assert not histogram(counts, BINS)[DEAD].any()
  assert counts.maximum[DEAD] == 0
