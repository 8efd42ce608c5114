"""Nearest latents agree with NumPy."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxsae.explore import nearest, neighbours


def make_directions(latents=30):
  rng = np.random.default_rng(0)
  lengths = 10.0 ** rng.uniform(-3, 3, (latents, 1))
  return (rng.normal(size=(latents, 8)) * lengths).astype("f4")


@pytest.mark.parametrize("at_once", [2**24, 30 * 7, 1])
def test_neighbours_agree_with_a_full_sort(monkeypatch, at_once):
  monkeypatch.setattr(neighbours, "_MAX_COSINES", at_once)
  directions = make_directions()
  latents, cosines = nearest(jnp.asarray(directions), 5)
  unit = directions / np.linalg.norm(directions, axis=1, keepdims=True)
  full = unit @ unit.T
  np.fill_diagonal(full, -2)
  np.testing.assert_array_equal(latents, np.argsort(-full, axis=1)[:, :5])
  np.testing.assert_allclose(
    cosines, np.take_along_axis(full, latents, axis=1), atol=1e-6
  )


def test_a_duplicate_is_nearest_and_a_latent_is_not_its_own_neighbour():
  directions = make_directions()
  directions[4] = 2 * directions[9]
  latents, cosines = nearest(jnp.asarray(directions), 3)
  assert latents[4, 0] == 9 and latents[9, 0] == 4
  np.testing.assert_allclose(cosines[[4, 9], 0], 1, rtol=1e-6)
  assert (latents != np.arange(30)[:, None]).all()


def test_a_direction_of_length_zero_has_cosine_zero():
  directions = make_directions()
  directions[4] = 0
  _, cosines = nearest(jnp.asarray(directions), 29)
  assert (cosines[4] == 0).all()
  assert np.isfinite(cosines).all()


def test_there_are_at_most_as_many_neighbours_as_other_latents():
  latents, cosines = nearest(jnp.asarray(make_directions(3)), 8)
  assert latents.shape == cosines.shape == (3, 2)
