"""The optimiser against optax's own Adam, and its schedules."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxsae.sae import stack as stacks
from jaxsae.train import optim
from jaxsae.train.config import OptimConfig


def test_direction_equals_adam_without_momentum():
  config = OptimConfig()
  ours = optim.transformation(config)
  theirs = optax.scale_by_adam(b1=0.0, b2=config.b2, eps=config.eps)
  params = jnp.zeros(20)
  mine, yours = ours.init(params), theirs.init(params)
  for i in range(5):
    grad = 1e-3 * jax.random.normal(jax.random.key(i), (20,))
    a, mine = ours.update(grad, mine)
    b, yours = theirs.update(grad, yours)
    np.testing.assert_allclose(a, b, rtol=1e-4)


def test_no_first_moment_is_kept():
  stack = stacks.init(jax.random.key(0), 2, 8, 32, 0.01)
  moments = optim.transformation(OptimConfig()).init(stack)
  size = lambda tree: sum(x.size for x in jax.tree.leaves(tree))
  assert size(moments) <= size(stack) + 1  # and the count


def test_directions_stay_unit_and_thresholds_positive():
  config = OptimConfig(lr=0.1)
  stack = stacks.init(jax.random.key(0), 2, 8, 32, 0.01)
  moments = optim.transformation(config).init(stack)
  for i in range(3):
    grads = jax.tree.map(
      lambda x, i=i: jax.random.normal(jax.random.key(i), x.shape), stack
    )
    stack, moments = optim.apply(config, stack, grads, moments, 0.1)
    norms = jnp.linalg.norm(stack.w_dec, axis=-1)
    np.testing.assert_allclose(norms, 1, rtol=1e-5)
    assert (stack.threshold >= 0).all()
  assert (stack.threshold == 0).any()  # the step was long enough to need it


def test_learning_rate_warms_up_and_decays():
  config = OptimConfig(lr=2.0, lr_warmup=10, lr_decay=0.25)
  rate = [float(optim.learning_rate(config, 100, i)) for i in range(101)]
  np.testing.assert_allclose(rate[0], 0.2, rtol=1e-6)
  np.testing.assert_allclose(rate[5], 0.2 + 1.8 * 0.5, rtol=1e-6)
  np.testing.assert_allclose(rate[10:76], 2.0, rtol=1e-6)
  np.testing.assert_allclose(rate[88], 2.0 * 12 / 25, rtol=1e-6)
  assert rate[100] == 0


def test_gemma_scope_keeps_its_rate_to_the_end():
  rate = optim.learning_rate(OptimConfig(), 5000, jnp.array(4999))
  np.testing.assert_allclose(rate, 7e-5, rtol=1e-6)


def test_sparsity_warms_up_linearly():
  config = OptimConfig(sparsity_warmup=10)
  found = [float(optim.sparsity_warmup(config, i)) for i in (0, 5, 10, 20)]
  np.testing.assert_allclose(found, [0, 0.5, 1, 1])
