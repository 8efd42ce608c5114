"""JumpReLU's forward and its straight-through gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsae.sae.jumprelu import in_window, jumprelu, l0


def grads(function, pre, threshold, bandwidth):
  """Gradients of the sum of `function` for one latent and several tokens."""
  pre, threshold = jnp.array(pre)[:, None], jnp.array([threshold])
  total = lambda z, t: jnp.sum(function(z, t, bandwidth))
  of_pre, of_threshold = jax.grad(total, argnums=(0, 1))(pre, threshold)
  return of_pre[:, 0], of_threshold[0]


def test_hand_computed_example():
  pre, threshold, bandwidth = [0.04, 0.06, 0.20], 0.05, 0.05
  z, t = jnp.array(pre)[:, None], jnp.array([threshold])
  np.testing.assert_allclose(jumprelu(z, t, bandwidth)[:, 0], [0, 0.06, 0.20])
  np.testing.assert_allclose(l0(z, t, bandwidth), [0, 1, 1])
  np.testing.assert_allclose(in_window(z, t, bandwidth)[:, 0], [1, 1, 0])

  of_pre, of_threshold = grads(jumprelu, pre, threshold, bandwidth)
  np.testing.assert_allclose(of_pre, [0, 1, 1])
  np.testing.assert_allclose(of_threshold, -2, rtol=1e-6)

  of_pre, of_threshold = grads(l0, pre, threshold, bandwidth)
  np.testing.assert_allclose(of_pre, [0, 0, 0])
  np.testing.assert_allclose(of_threshold, -40, rtol=1e-6)


def test_inactive_latents_far_below_do_not_pull_on_the_threshold():
  """Fed with latents instead of pre-activations this would give -40."""
  _, of_threshold = grads(l0, [-0.3, -0.3, 0.2], 0.02, 0.05)
  assert of_threshold == 0


def test_a_value_at_the_threshold_is_inactive():
  z = jnp.array([[0.5]])
  assert jumprelu(z, jnp.array([0.5]), 0.1)[0, 0] == 0
  assert l0(z, jnp.array([0.5]), 0.1)[0] == 0


@pytest.mark.parametrize("function", [jumprelu, l0])
def test_each_latent_has_its_own_gradient(function):
  key = jax.random.key(0)
  pre = jax.random.normal(key, (200, 5))
  threshold = jnp.linspace(0.1, 0.5, 5)
  total = lambda t: jnp.sum(function(pre, t, 0.3))
  together = jax.grad(total)(threshold)
  for i in range(5):
    alone = jax.grad(
      lambda t, i=i: jnp.sum(function(pre[:, i : i + 1], t, 0.3))
    )(threshold[i : i + 1])
    np.testing.assert_allclose(together[i], alone[0], rtol=1e-5)


def test_gradients_estimate_the_derivative_of_the_expectation():
  """E[pre·H(pre - θ)] and E[H(pre - θ)] for uniform pre on [0, 1]."""
  pre = (jnp.arange(200_000) + 0.5) / 200_000
  n = len(pre)
  for threshold in (0.3, 0.6):
    _, of_jump = grads(jumprelu, pre, threshold, 0.05)
    np.testing.assert_allclose(of_jump / n, -threshold, rtol=1e-3)
    _, of_l0 = grads(l0, pre, threshold, 0.05)
    np.testing.assert_allclose(of_l0 / n, -1, rtol=1e-3)
