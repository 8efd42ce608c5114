"""Prefixes train alike wherever latents are split, and rest in their order."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsae import mesh as meshes
from jaxsae.lm import Site
from jaxsae.mesh import MeshConfig
from jaxsae.sae import Sae
from jaxsae.sae.interleaving import Interleaving
from jaxsae.train.config.run import Schedule, SweepConfig
from jaxsae.train.config.sweep import OptimConfig
from jaxsae.train.group import place_stacks
from jaxsae.train.placement import interleave
from jaxsae.train.state import init
from jaxsae.train.step import shuffle, train_bucket
from jaxsae.train.update import Activations

pytestmark = pytest.mark.slow

BOTH = ("model", "data")
SITE = Site("resid", 0)


@pytest.mark.parametrize(
  ("data", "model", "latents", "block"),
  [
    (4, 2, ("model",), 4),
    (4, 2, ("data",), 2),
    (2, 4, BOTH, 1),
    (8, 1, BOTH, 1),
    (2, 4, BOTH, 2),  # more than each device has for every other
  ],
)
def test_latents_are_dealt_out_and_come_back(data, model, latents, block):
  mesh, width = meshes.make(MeshConfig(data, model)), 64
  order = Interleaving(meshes.axes_size(mesh, latents), block)
  numbers = jnp.arange(float(width))
  like = lambda *shape: jnp.broadcast_to(numbers.reshape(shape), (3, 5, width))
  sae = Sae(
    w_enc=like(1, 1, -1),
    b_enc=like(1, 1, -1)[:, 0],
    w_dec=jnp.swapaxes(like(1, 1, -1), 1, 2),
    b_dec=jnp.zeros((3, 5)),
    threshold=like(1, 1, -1)[:, 0],
  )
  move = interleave.Move(BOTH, latents)
  place = lambda change: jax.jit(lambda sae: change(sae, mesh, move, order))
  dealt = place(interleave.interleave)(sae)
  rows = np.arange(width).reshape(-1, order.shards, block)
  expected = np.swapaxes(rows, 0, 1).ravel()
  np.testing.assert_array_equal(dealt.b_enc[0], expected)
  np.testing.assert_array_equal(dealt.w_enc[2, 3], expected)
  np.testing.assert_array_equal(dealt.w_dec[1, :, 4], expected)
  back = place(interleave.restore)(dealt)
  for found, was in zip(
    jax.tree.leaves(back), jax.tree.leaves(sae), strict=True
  ):
    np.testing.assert_array_equal(found, was)


@functools.cache
def trained(placement, data, model, prefixes):
  """The state after a bucket of four updates, and its metrics."""
  sweep = SweepConfig(
    sites=(SITE,),
    widths=(128,),
    sparsity_coefficient=(1e-3, 1e-2),
    prefixes=prefixes,
    placement=placement,
    optim=OptimConfig(lr=1e-2, lr_warmup=0, sparsity_warmup=0),
  )
  mesh = meshes.make(MeshConfig(data, model))
  state = init(sweep.stacks, 0, {SITE: 16}, {SITE: 1.0})
  groups = place_stacks(
    sweep.stacks, Schedule(4, 4, 64), mesh, state.stacks, jnp.float32
  )
  x = jax.random.normal(jax.random.key(1), (8, 32, 16))
  bucket = Activations({SITE: x}, jnp.ones((8, 32)))
  train = jax.jit(functools.partial(train_bucket, groups))
  after, metrics = train(state, bucket, shuffle(state, bucket, 4))
  return jax.device_get((after.stacks[0], metrics[0]))


EVEN, RAGGED = (1 / 16, 1 / 4), (0.1, 0.3)


@pytest.mark.parametrize(
  ("placement", "data", "model", "prefixes"),
  [
    ("by_latent", 2, 4, EVEN),
    ("by_latent", 8, 1, RAGGED),
    ("by_sae_and_latent", 4, 2, RAGGED),
    ("by_latent_and_row", 2, 4, EVEN),
  ],
)
def test_prefixes_train_as_on_one_device(placement, data, model, prefixes):
  expected = trained("auto", 1, 1, prefixes)
  found = trained(placement, data, model, prefixes)
  for mine, theirs in zip(
    jax.tree.leaves(found), jax.tree.leaves(expected), strict=True
  ):
    np.testing.assert_allclose(mine, theirs, rtol=2e-3, atol=2e-5)
  # Prefixes do something, and other latents would not be these.
  plain = trained("auto", 1, 1, ())
  assert not np.allclose(plain[0].sae.w_dec, expected[0].sae.w_dec, atol=1e-3)
