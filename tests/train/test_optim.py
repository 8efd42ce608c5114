"""The optimiser agrees with optax's Adam, and follows its schedules."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxsae.sae import JumpRelu
from jaxsae.train import optim
from jaxsae.train.config.run import OptimConfig
from tests.sae.toys import stack

pytestmark = pytest.mark.slow


def rates(rate):
  """Makes rates that are the same for both."""
  return jnp.full(2, rate)


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


def test_fifty_updates_equal_adam_with_beta_1_of_zero():
  """All parameters agree, in the order: project, Adam, renormalise."""
  config = OptimConfig(lr_warmup=10)
  ours = stack(2, 0.01)
  theirs, moments = ours, optim.transformation(config).init(ours)
  adam = optax.adam(
    lambda i: config.lr * optim.learning_rate(config, 50, i),
    b1=0.0,
    b2=config.b2,
    eps=config.eps,
  )
  state = adam.init(theirs)
  start, furthest = ours, 0.0
  for i in range(50):
    grads = jax.tree.map(
      lambda x, i=i: 1e-3 * jax.random.normal(jax.random.key(i), x.shape), ours
    )
    rate = rates(config.lr * optim.learning_rate(config, 50, i))
    ours, moments = optim.apply(
      config, JumpRelu(), ours, grads, moments, rate, ()
    )

    along = jnp.einsum("sfd,sfd->sf", grads.w_dec, theirs.w_dec)[..., None]
    grads = grads.replace(w_dec=grads.w_dec - along * theirs.w_dec)
    updates, state = adam.update(grads, state)
    theirs = optax.apply_updates(theirs, updates)
    norms = jnp.linalg.norm(theirs.w_dec, axis=-1, keepdims=True)
    furthest = max(furthest, float(jnp.max(jnp.abs(norms - 1))))
    theirs = theirs.replace(w_dec=theirs.w_dec / norms)
  assert furthest > 1e-9  # renormalising did something
  for name in ("w_enc", "b_enc", "w_dec", "b_dec", "threshold"):
    a, b, c = (getattr(x, name) for x in (ours, theirs, start))
    moved = float(jnp.max(jnp.abs(b - c)))
    assert moved > 1e-4, name
    np.testing.assert_allclose(a - c, b - c, atol=1e-3 * moved, err_msg=name)


def test_gradients_of_directions_are_orthogonal_to_them(monkeypatch):
  """They are projected before Adam, whose scaling would change norms."""
  config = OptimConfig()
  pair = stack(2, 0.01)
  moments = optim.transformation(config).init(pair)
  grads = jax.tree.map(
    lambda x: jax.random.normal(jax.random.key(1), x.shape), pair
  )
  seen, real = [], optim.transformation(config)

  def update(grads, state):
    seen.append(grads.w_dec)
    return real.update(grads, state)

  watched = optax.GradientTransformation(real.init, update)
  monkeypatch.setattr(optim, "transformation", lambda config: watched)
  optim.apply(config, JumpRelu(), pair, grads, moments, rates(1e-3), ())
  assert jnp.max(jnp.abs(jnp.sum(grads.w_dec * pair.w_dec, -1))) > 0.1
  assert jnp.max(jnp.abs(jnp.sum(seen[0] * pair.w_dec, -1))) < 1e-5


def test_no_first_moment_is_kept():
  pair = stack(2, 0.01)
  moments = optim.transformation(OptimConfig()).init(pair)
  size = lambda tree: sum(x.size for x in jax.tree.leaves(tree))
  assert size(moments) <= size(pair) + 1  # and the count


def test_directions_stay_unit_and_thresholds_positive():
  config = OptimConfig(lr=0.1)
  pair = stack(2, 0.01)
  moments = optim.transformation(config).init(pair)
  for i in range(3):
    grads = jax.tree.map(
      lambda x, i=i: jax.random.normal(jax.random.key(i), x.shape), pair
    )
    pair, moments = optim.apply(
      config, JumpRelu(), pair, grads, moments, rates(0.1), ()
    )
    norms = jnp.linalg.norm(pair.w_dec, axis=-1)
    np.testing.assert_allclose(norms, 1, rtol=1e-5)
    assert (pair.threshold >= 0).all()
  assert (pair.threshold == 0).any()  # the step was long enough to need it


def test_learning_rate_warms_up_and_decays():
  config = OptimConfig(lr_warmup=10, lr_decay=0.25)
  rate = [float(optim.learning_rate(config, 100, i)) for i in range(101)]
  np.testing.assert_allclose(rate[0], 0.1, rtol=1e-6)
  np.testing.assert_allclose(rate[5], 0.1 + 0.9 * 0.5, rtol=1e-6)
  np.testing.assert_allclose(rate[10:76], 1.0, rtol=1e-6)
  np.testing.assert_allclose(rate[88], 12 / 25, rtol=1e-6)
  assert rate[100] == 0


def test_gemma_scope_keeps_its_rate_to_the_end():
  rate = optim.learning_rate(OptimConfig(), 5000, jnp.array(4999))
  np.testing.assert_allclose(rate, 1, rtol=1e-6)


def test_sparsity_warms_up_linearly():
  config = OptimConfig(sparsity_warmup=10)
  found = [float(optim.sparsity_warmup(config, i)) for i in (0, 5, 10, 20)]
  np.testing.assert_allclose(found, [0, 0.5, 1, 1])


def test_with_a_first_moment_it_is_adam():
  config = OptimConfig(b1=0.9)
  ours, adam = optim.transformation(config), optax.scale_by_adam(0.9, 0.999)
  grads = jax.random.normal(jax.random.key(0), (20,))
  a, _ = ours.update(grads, ours.init(grads))
  b, _ = adam.update(grads, adam.init(grads))
  np.testing.assert_array_equal(a, b)


@pytest.fixture
def seen(monkeypatch):
  """Returns the gradients that Adam receives."""
  gradients = []
  watched = optax.GradientTransformation(
    optax.identity().init, lambda g, s: (gradients.append(g), (g, s))[1]
  )
  monkeypatch.setattr(optim, "transformation", lambda config: watched)
  return gradients


def test_each_long_gradient_is_clipped_separately(seen):
  pair = stack(2, 0.01)
  grads = jax.tree.map(lambda x: jnp.zeros_like(x).at[:, 0].set(1.0), pair)
  grads = jax.tree.map(lambda x: x.at[1].multiply(1e-3), grads)
  config, architecture = OptimConfig(clip=0.5), JumpRelu()
  optim.apply(config, architecture, pair, grads, (), rates(0.1), ())
  projected = jax.vmap(architecture.project)(grads, pair)
  long, short = jax.vmap(optax.tree.norm)(seen[0])
  np.testing.assert_allclose(long, 0.5, rtol=1e-5)
  untouched = jax.vmap(optax.tree.norm)(projected)[1]
  np.testing.assert_allclose(short, untouched, rtol=1e-6)
  assert untouched < 0.5


def test_clipping_is_the_same_at_any_scale_of_activations(seen):
  """With ‖x‖² = s², gradients of weights are s² as large, of vectors s."""
  alone, s = stack(2, 0.01), 16.0
  grads = jax.tree.map(jnp.ones_like, alone)
  larger = jax.tree.map(lambda g: g * (s**2 if g.ndim == 3 else s), grads)
  for config, given in (
    (OptimConfig(clip=1 / s**2, vector_rate=1 / s), grads),
    (OptimConfig(clip=1.0), larger),
    (OptimConfig(clip=1 / s**2), grads),
  ):
    optim.apply(config, JumpRelu(), alone, given, (), rates(0.1), ())
  here, there, without_rate = ([g.w_enc[0], g.threshold[0]] for g in seen)
  for a, b, power in zip(here, there, (s**2, s), strict=True):
    np.testing.assert_allclose(power * a, b, rtol=1e-5)
  assert not np.allclose(here[0], without_rate[0], rtol=1e-2)
