"""Pseudo-derivatives are derivatives of the expected exact loss.

A token's loss jumps where a pre-activation passes its threshold; its mean over
a smooth density of pre-activations does not. Two latents read the two
coordinates of x, which lies on a grid and is weighted by a correlated normal
density. Thresholds lie on edges of the grid's cells, so sums are midpoint
rules on both sides of a jump, and the only error is the kernel's own. It is
linear in ε (the upstream gradient jumps at θ too, and the density is not level
there), so two bandwidths tell the limit.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsae.sae import JumpRelu, Kernel, Sae
from jaxsae.sae.penalty import L0, BatchQuadratic, Frequency, Quadratic
from tests.sae.toys import loss

CELL = 1 / 64
THRESHOLDS = (20 * CELL, 48 * CELL)
BANDWIDTH = 8 * CELL  # and half of it
KERNEL = Kernel(BANDWIDTH)
STEP = CELL  # of the finite difference


def grid():
  """Makes tokens [N, 2] and the weight of each."""
  axis = (np.arange(-4 * 64, 4 * 64) + 0.5) * CELL
  x = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)
  a, b = x[:, 0], x[:, 1] - 0.3
  return x, np.exp(-0.5 * (a**2 - 1.2 * a * b + b**2) / (1 - 0.36))


def value(thresholds, penalties, kernel=KERNEL, bias=(0.0, 0.0)):
  x, weight = grid()
  sae = Sae(
    w_enc=jnp.eye(2),
    b_enc=jnp.asarray(bias),
    w_dec=jnp.array([[0.3, -0.6], [0.2, 0.5]]),
    b_dec=jnp.zeros(2),
    threshold=thresholds,
  )
  objective = JumpRelu(kernel=kernel, penalties=penalties)
  asleep = jnp.zeros(2, bool)
  # A mask of weights makes every mean an expectation.
  return loss(
    sae, jnp.asarray(x), jnp.asarray(weight), asleep, objective, 0.4, 1.2
  )[0]


def slope(penalties):
  """Returns the slope of the expected exact loss in each threshold."""
  found = []
  for move in np.eye(2) * STEP:
    up = value(jnp.asarray(THRESHOLDS + move), penalties)
    down = value(jnp.asarray(THRESHOLDS - move), penalties)
    found.append((up - down) / (2 * STEP))
  return np.array(found)


def pseudo(penalties):
  """Returns the straight-through gradient in the limit of zero bandwidth."""
  of_thresholds = jax.grad(value)
  wide, narrow = (
    of_thresholds(jnp.asarray(THRESHOLDS), penalties, Kernel(bandwidth))
    for bandwidth in (BANDWIDTH, BANDWIDTH / 2)
  )
  assert np.max(np.abs(wide - narrow)) < 0.02 * np.max(np.abs(narrow))
  return 2 * narrow - wide


@pytest.mark.parametrize(
  "penalties",
  [
    (),  # JumpReLU alone
    (L0(),),
    (Quadratic(),),
    (BatchQuadratic(),),
    (L0(), Frequency(0.3)),
  ],
  ids=repr,
)
def test_the_gradient_of_thresholds_is_that_of_the_expected_loss(penalties):
  with jax.enable_x64(True):
    exact = slope(penalties)
    assert np.min(np.abs(exact)) > 1e-3  # there is something to estimate
    np.testing.assert_allclose(pseudo(penalties), exact, rtol=2e-3)


def test_the_gradients_of_penalties_alone():
  """The squared error is left out, which would hide errors."""
  with jax.enable_x64(True):
    bare, exact = pseudo(()), slope(())
    for penalty in (L0(), Quadratic(), BatchQuadratic(), Frequency(0.3)):
      np.testing.assert_allclose(
        pseudo((penalty,)) - bare,
        slope((penalty,)) - exact,
        rtol=2e-3,
        err_msg=repr(penalty),
      )


@pytest.mark.parametrize("penalty", [L0(), Quadratic()], ids=repr)
def test_with_gradients_to_the_input_biases_have_gradients_too(penalty):
  """Moving a bias up lets a latent fire as moving its threshold down does."""

  def of_bias(bandwidth):
    kernel = Kernel(bandwidth, to_input=True)
    cost = lambda b: value(jnp.asarray(THRESHOLDS), (penalty,), kernel, b)
    return jax.grad(cost)(jnp.zeros(2))

  with jax.enable_x64(True):
    at = lambda b: value(jnp.asarray(THRESHOLDS), (penalty,), bias=b)
    exact = [(at(b) - at(-b)) / (2 * STEP) for b in np.eye(2) * STEP]
    limit = 2 * of_bias(BANDWIDTH / 2) - of_bias(BANDWIDTH)
    np.testing.assert_allclose(limit, exact, rtol=2e-3)
