"""Training on activations in memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsae.data import DataConfig
from jaxsae.errors import UserError
from jaxsae.lm import Site, Taps
from jaxsae.mesh import MeshConfig
from jaxsae.sae import sparse
from jaxsae.train import BucketConfig, OptimConfig, SweepConfig, TrainConfig
from jaxsae.train import update as updates
from jaxsae.train.arrays import train_on

pytestmark = pytest.mark.slow

UPDATES, BATCH, D = 30, 64, 16


@pytest.fixture
def x():
  """Makes sparse sums of fixed directions of any norm: [U, N, D]."""
  keys = jax.random.split(jax.random.key(0), 3)
  directions = jax.random.normal(keys[0], (40, D))
  on = jax.random.uniform(keys[1], (UPDATES, BATCH, 40)) < 0.1
  strength = 1 + jax.random.uniform(keys[2], on.shape)
  return (on * strength) @ directions


@pytest.fixture
def config():
  return TrainConfig(
    tokens=UPDATES * BATCH,
    data=DataConfig(context=BATCH),
    sae=SweepConfig(
      sites=(Site("resid", 0),),
      widths=(64,),
      penalty="quadratic",
      target_l0=(4, 8),
      bandwidth=0.05,
      initial_threshold=0.05,
      optim=OptimConfig(lr=1e-2, lr_warmup=5, sparsity_warmup=5),
    ),
    bucket=BucketConfig(microbatches=1, rows=1, update_tokens=BATCH),
    mesh=MeshConfig(1, 1),
  )


def fvu(sae, x):
  error = jnp.sum(jnp.square(x - sae(x)))
  return error / jnp.sum(jnp.square(x - jnp.mean(x, axis=0)[None]))


def test_training_learns_raw_activations(config, x):
  made = train_on(config, iter(x), x[0])
  assert list(made) == ["resid.0/64/l0_4", "resid.0/64/l0_8"]
  for sae in made.values():
    assert fvu(sae, x[-1]) < 0.5


def test_a_sweep_trains_as_a_run_does_and_needs_no_site(config, x):
  of_run = train_on(config, iter(x), x[0])
  of_sweep = train_on(config.sae, iter(x), x[0], updates=UPDATES)
  assert list(of_sweep) == ["64/l0_4", "64/l0_8"]
  for one, other in zip(of_run.values(), of_sweep.values(), strict=True):
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_errors_name_what_is_missing(config, x, replace):
  with pytest.raises(UserError, match="updates="):
    train_on(config.sae, iter(x), x[0])
  with pytest.raises(UserError, match=r"end after 30"):
    train_on(config.sae, iter(x), x[0], updates=UPDATES + 1)
  with pytest.raises(UserError, match="scale_on"):
    train_on(config.sae, iter(x), 0 * x[0], updates=1)
  several = replace(config, sae__sites=(Taps.parse("resid.0+resid.1"),))
  with pytest.raises(UserError, match=r"resid\.0\+resid\.1"):
    train_on(several, iter(x), x[0])


def test_a_wide_autoencoder_trains_the_same_from_pairs(
  config, x, replace, monkeypatch
):
  wide = replace(config, sae__widths=(updates.WIDE,), tokens=5 * BATCH)
  called, real = [], sparse.gradients
  monkeypatch.setattr(
    sparse, "gradients", lambda *args: (called.append(1), real(*args))[1]
  )
  pairs = train_on(wide, iter(x), x[0])
  assert called
  called.clear()
  monkeypatch.setattr(updates, "WIDE", 10**9)
  jax.clear_caches()
  dense = train_on(wide, iter(x), x[0])
  assert not called
  for name, sae in dense.items():
    for one, other in zip(
      jax.tree.leaves(sae), jax.tree.leaves(pairs[name]), strict=True
    ):
      most = float(jnp.max(jnp.abs(one))) or 1.0
      np.testing.assert_allclose(one / most, other / most, atol=2e-3)


def test_biases_and_thresholds_may_have_their_own_rate(config, x, replace):
  still = replace(config, sae__optim__vector_rate=1e-12)
  found = train_on(still, iter(x), x[0])["resid.0/64/l0_8"]
  scale = np.sqrt(np.mean(np.sum(np.square(x[0]), axis=-1)))
  np.testing.assert_allclose(found.threshold, 0.05 * scale, rtol=1e-4)
  np.testing.assert_allclose(found.b_dec, 0, atol=1e-6)
  assert fvu(found, x[-1]) < 1  # weights do learn
