"""Penalties agree with arithmetic by hand, and ignore masked tokens."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxsae.sae import JumpRelu, Kernel, Sae, UpdateInputs, UpdateTokens
from jaxsae.sae import stack as stacks
from jaxsae.sae.penalty import (
  L0,
  Activity,
  BatchQuadratic,
  Frequency,
  Quadratic,
  Tanh,
)
from tests.sae.toys import gradients, loss, stack

pytestmark = pytest.mark.slow

ALL = [L0(), Quadratic(), BatchQuadratic(), Tanh(), Frequency(0.1)]


def activity(pre, mask=None, to_input=False) -> Activity:
  """Makes the activity of pre-activations [N, F], with thresholds of 0.05."""
  pre = jnp.array(pre)
  n, width = pre.shape
  return Activity(
    pre=pre,
    threshold=jnp.full(width, 0.05),
    w_dec=jnp.full((width, 4), 1.0),  # of norm 2
    mask=jnp.ones(n) if mask is None else jnp.array(mask, float),
    kernel=Kernel(0.05, to_input),
  )


@pytest.mark.parametrize(
  ("penalty", "expected"),
  [
    (L0(), 2 / 3),
    (Quadratic(), 2 / 3),  # mean of 2 (L0 - 1)²
    (BatchQuadratic(), 1 / 9),  # (2/3 - 1)²
    (Tanh(), (np.tanh(8 * 0.06) + np.tanh(8 * 0.2)) / 3),
    (Frequency(0.5), (2 / 3) ** 2 / 0.5),
  ],
)
def test_one_latent_on_three_tokens(penalty, expected):
  """L0 is 0, 1, 1 and the target 1."""
  seen = activity([[0.04], [0.06], [0.20]])
  np.testing.assert_allclose(penalty(seen, 1.0, 1.0), expected, rtol=1e-5)
  np.testing.assert_allclose(penalty(seen, 3.0, 1.0), 3 * expected, rtol=1e-5)


def test_gemma_scope_2s_slope_is_that_of_l0_at_a_quarter_above_the_target():
  """At twice the target it is four times that."""

  def slope(penalty, active):
    pre = jnp.where(jnp.arange(40) < active, 1.0, -1.0).at[-1].set(0.05)
    seen = activity(pre[None])
    cost = lambda t: penalty(
      Activity(seen.pre, t, seen.w_dec, seen.mask, seen.kernel), 1.0, 16.0
    )
    return jax.grad(cost)(seen.threshold)[-1]

  # The latent at its threshold is inactive: L0 is what is active beside it.
  np.testing.assert_allclose(slope(Quadratic(), 20), slope(L0(), 20), rtol=1e-5)
  np.testing.assert_allclose(
    slope(Quadratic(), 32), 4 * slope(L0(), 32), rtol=1e-5
  )


def test_frequency_and_l0_together_are_p_times_one_plus_p_over_omega():
  pre = jax.random.normal(jax.random.key(0), (50, 7))
  p = np.mean(np.asarray(pre) > 0.05, axis=0)
  both = sum(f(activity(pre), 0.3, 1.0) for f in (L0(), Frequency(0.2)))
  np.testing.assert_allclose(both, 0.3 * np.sum(p * (1 + p / 0.2)), rtol=1e-5)


def test_the_frequency_penalty_pulls_on_frequent_latents():
  """2λp/ω for each latent, through the same kernel as L0."""
  pre = jnp.array([[0.06, 0.06], [0.2, -1.0], [0.2, -1.0], [0.2, -1.0]])

  def slopes(penalty):
    seen = activity(pre)
    cost = lambda t: penalty(
      Activity(pre, t, seen.w_dec, seen.mask, seen.kernel), 1.0, 1.0
    )
    return jax.grad(cost)(seen.threshold)

  p = np.array([1.0, 0.25])
  np.testing.assert_allclose(
    slopes(Frequency(0.1)), slopes(L0()) * 2 * p / 0.1, rtol=1e-5
  )


@pytest.mark.parametrize("penalty", ALL, ids=repr)
@pytest.mark.parametrize("to_input", [False, True])
def test_masked_tokens_do_not_count(penalty, to_input):
  sae = stacks.member(stack(1, 0.1), 0)
  x = jax.random.normal(jax.random.key(1), (20, 8))
  mask = (jnp.arange(20) % 3 > 0).astype(jnp.float32)
  objective = JumpRelu(kernel=Kernel(0.2, to_input), penalties=(penalty,))
  alive = jnp.zeros(32, bool)

  def everything(x, mask):
    rest = (x, mask, alive, objective, 0.5, 4.0)
    return loss(sae, *rest), gradients(sae, *rest)

  kept = np.flatnonzero(mask)
  alone = everything(x[kept], jnp.ones(len(kept)))
  masked = everything(jnp.where(mask[:, None] > 0, x, 1e3), mask)
  for a, b in zip(jax.tree.leaves(alone), jax.tree.leaves(masked), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("penalty", ALL, ids=repr)
def test_a_stack_has_the_gradients_of_its_members(penalty):
  """Members have different λ and L0*, and one threshold each."""
  three = stack(3, 0.1)
  x = jax.random.normal(jax.random.key(1), (40, 8))
  objective = JumpRelu(kernel=Kernel(0.2), penalties=(penalty,))
  coefficients, targets = jnp.array([0.1, 0.2, 0.3]), jnp.array([2.0, 4.0, 8.0])

  def of_one(sae, coefficient, target):
    alive = jnp.zeros(32, bool)
    ones = jnp.ones(40)
    return gradients(sae, x, ones, alive, objective, coefficient, target)

  grads, _ = jax.jit(jax.vmap(of_one))(three, coefficients, targets)
  assert grads.threshold.shape == (3, 32)
  for i in range(3):
    alone, _ = of_one(stacks.member(three, i), coefficients[i], targets[i])
    together = stacks.member(grads, i)
    for a, b in zip(
      jax.tree.leaves(alone), jax.tree.leaves(together), strict=True
    ):
      np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("penalty", ALL, ids=repr)
def test_the_share_of_a_penalty_in_the_pull_on_thresholds(penalty):
  sae = stacks.member(stack(1, 0.1), 0)
  x = jax.random.normal(jax.random.key(1), (40, 8))
  rest = (x, jnp.ones(40), jnp.zeros(32, bool))
  paying = JumpRelu(kernel=Kernel(0.2), penalties=(penalty,))
  free = JumpRelu(kernel=Kernel(0.2), penalties=())
  grads, _ = gradients(sae, *rest, paying, 0.5, 4.0)
  other = gradients(sae, *rest, free, 0.5, 4.0)[0].threshold
  pull = np.abs(grads.threshold - other).sum()
  inputs = UpdateInputs(jnp.array(0.5), jnp.array(4.0), rest[-1])
  told = paying.diagnose(sae, sae, UpdateTokens(x, x, rest[1]), inputs)
  share = pull / (pull + np.abs(other).sum())
  np.testing.assert_allclose(told["pull"], share, rtol=1e-3)
  assert 0 < share < 1
  assert (
    free.diagnose(sae, sae, UpdateTokens(x, x, rest[1]), inputs)["pull"] == 0
  )


def crowded(shards):
  """Makes an autoencoder, and tokens more active from shard to shard."""
  eye = jnp.eye(8)
  sae = Sae(eye, jnp.zeros(8), eye, jnp.zeros(8), jnp.full(8, 0.5))
  count = jnp.repeat(jnp.arange(8), 4)  # active latents of each of 32 tokens
  x = (jnp.arange(8)[None, :] < count[:, None]) * 0.55
  return sae, x, count.reshape(shards, -1).mean(axis=1)


@pytest.mark.parametrize("shape", [(8, 1), (4, 2), (1, 8)])
def test_the_batch_mean_is_taken_over_the_whole_mesh_before_it_is_squared(
  shape,
):
  sae, x, means = crowded(shards=8)
  objective = JumpRelu(kernel=Kernel(0.2), penalties=(BatchQuadratic(),))

  def everything(sae, x, mask):
    rest = (mask, jnp.zeros(8, bool), objective, 1.0, 2.0)
    value, seen = loss(sae, x, *rest)
    penalty = value - seen.squared_error / seen.tokens
    return penalty, gradients(sae, x, *rest)[0]

  alone = everything(sae, x, jnp.ones(32))
  np.testing.assert_allclose(alone[0], (3.5 / 2 - 1) ** 2, rtol=1e-5)
  by_shard = jnp.mean(jnp.square(means / 2 - 1))
  assert by_shard > 2 * alone[0]  # what squaring on each device would give

  mesh = Mesh(np.array(jax.devices()).reshape(shape), ("data", "model"))
  place = lambda x, *spec: jax.device_put(
    x, NamedSharding(mesh, PartitionSpec(*spec))
  )
  placed = Sae(
    w_enc=place(sae.w_enc, None, "model"),
    b_enc=place(sae.b_enc, "model"),
    w_dec=place(sae.w_dec, "model", None),
    b_dec=place(sae.b_dec),
    threshold=place(sae.threshold, "model"),
  )
  tokens, mask = place(x, "data", None), place(jnp.ones(32), "data")
  spread = jax.jit(everything)(placed, tokens, mask)
  for a, b in zip(jax.tree.leaves(alone), jax.tree.leaves(spread), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
  assert spread[1].threshold.any()
