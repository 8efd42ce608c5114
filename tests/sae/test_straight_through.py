"""JumpReLU and its straight-through gradients agree with the paper's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsae.sae.straight_through import Kernel, activate


def jumprelu(pre, threshold, kernel):
  return activate(pre, threshold, kernel)[0]


def heaviside(pre, threshold, kernel):
  return activate(pre, threshold, kernel)[1]


def grads(function, pre, threshold, kernel):
  """Returns gradients of `function`, summed over tokens of one latent."""
  pre, threshold = jnp.array(pre)[:, None], jnp.array([threshold])
  total = lambda z, t: jnp.sum(function(z, t, kernel))
  of_pre, of_threshold = jax.grad(total, argnums=(0, 1))(pre, threshold)
  return of_pre[:, 0], of_threshold[0]


def test_hand_computed_example():
  pre, threshold, kernel = [0.04, 0.06, 0.20], 0.05, Kernel(0.05)
  z, t = jnp.array(pre)[:, None], jnp.array([threshold])
  np.testing.assert_allclose(jumprelu(z, t, kernel)[:, 0], [0, 0.06, 0.20])
  np.testing.assert_allclose(heaviside(z, t, kernel)[:, 0], [0, 1, 1])
  np.testing.assert_allclose(kernel.holds(z, t)[:, 0], [1, 1, 0])

  of_pre, of_threshold = grads(jumprelu, pre, threshold, kernel)
  np.testing.assert_allclose(of_pre, [0, 1, 1])
  np.testing.assert_allclose(of_threshold, -2, rtol=1e-6)

  of_pre, of_threshold = grads(heaviside, pre, threshold, kernel)
  np.testing.assert_allclose(of_pre, [0, 0, 0])
  np.testing.assert_allclose(of_threshold, -40, rtol=1e-6)


def test_hand_computed_example_with_gradients_to_the_input():
  pre, threshold, kernel = [0.04, 0.06, 0.20], 0.05, Kernel(0.05, True)
  of_pre, of_threshold = grads(jumprelu, pre, threshold, kernel)
  np.testing.assert_allclose(of_pre, [1, 2, 1], rtol=1e-6)
  np.testing.assert_allclose(of_threshold, -2, rtol=1e-6)

  of_pre, of_threshold = grads(heaviside, pre, threshold, kernel)
  np.testing.assert_allclose(of_pre, [20, 20, 0], rtol=1e-6)
  np.testing.assert_allclose(of_threshold, -40, rtol=1e-6)


def test_inactive_latents_far_below_do_not_pull_on_the_threshold():
  """With latents instead of pre-activations this would give -40."""
  _, of_threshold = grads(heaviside, [-0.3, -0.3, 0.2], 0.02, Kernel(0.05))
  assert of_threshold == 0


def test_latents_just_below_the_threshold_pull_on_it():
  """With latents instead of pre-activations this would give -20."""
  _, of_threshold = grads(heaviside, [0.04, 0.06, 0.20], 0.05, Kernel(0.05))
  np.testing.assert_allclose(of_threshold, -40, rtol=1e-6)


def test_a_value_at_the_threshold_is_inactive():
  z = jnp.array([[0.5]])
  assert jumprelu(z, jnp.array([0.5]), Kernel(0.1))[0, 0] == 0
  assert heaviside(z, jnp.array([0.5]), Kernel(0.1))[0, 0] == 0


@pytest.mark.parametrize("function", [jumprelu, heaviside])
def test_each_latent_has_its_own_gradient(function):
  key = jax.random.key(0)
  pre = jax.random.normal(key, (200, 5))
  threshold = jnp.linspace(0.1, 0.5, 5)
  total = lambda t: jnp.sum(function(pre, t, Kernel(0.3)))
  together = jax.grad(total)(threshold)
  for i in range(5):
    alone = jax.grad(
      lambda t, i=i: jnp.sum(function(pre[:, i : i + 1], t, Kernel(0.3)))
    )(threshold[i : i + 1])
    np.testing.assert_allclose(together[i], alone[0], rtol=1e-5)


@pytest.mark.parametrize("function", [jumprelu, heaviside])
def test_thresholds_of_a_stack_have_their_own_gradients(function):
  """Summed over one axis too many, all latents would share one number."""
  pre = jax.random.normal(jax.random.key(0), (3, 200, 5))
  threshold = jnp.linspace(0.1, 0.5, 15).reshape(3, 5)
  total = lambda z, t: jnp.sum(function(z, t, Kernel(0.3)))
  of_stack = jax.vmap(jax.grad(total, argnums=1))(pre, threshold)
  assert of_stack.shape == (3, 5)
  assert len(set(of_stack.ravel().tolist())) > 10
  for i in range(3):
    alone = jax.grad(total, argnums=1)(pre[i], threshold[i])
    np.testing.assert_allclose(of_stack[i], alone, rtol=1e-5)
