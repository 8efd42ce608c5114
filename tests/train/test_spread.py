"""A bucket that is spread over all devices trains as one that is not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsae import mesh as meshes
from jaxsae.lm import Site
from jaxsae.mesh import MeshConfig
from jaxsae.train.config.run import Schedule, SweepConfig
from jaxsae.train.group import place_stacks
from jaxsae.train.placement import layout
from jaxsae.train.state import init
from jaxsae.train.step import shuffle, train_bucket
from jaxsae.train.update import Activations

SITES = Site("resid", 0), Site("mlp", 0), Site("resid", 1)


def trained(placement, data, model):
  """The stacks after a bucket of two updates."""
  sweep = SweepConfig(
    sites=SITES,
    widths=(32,),
    sparsity_coefficient=(1e-3, 1e-2),
    placement=placement,
  )
  mesh = meshes.make(MeshConfig(data, model))
  state = init(
    sweep.stacks, 0, dict.fromkeys(SITES, 8), dict.fromkeys(SITES, 1.0)
  )
  groups = place_stacks(
    sweep.stacks, Schedule(2, 2, 32), mesh, state.stacks, jnp.float32
  )
  keys = jax.random.split(jax.random.key(1), len(SITES))
  sites = {
    s: jax.random.normal(k, (4, 16, 8))
    for s, k in zip(SITES, keys, strict=True)
  }
  bucket = Activations(sites, jnp.ones((4, 16)))

  def train(state, bucket):
    bucket = bucket.replace(sites=layout.spread(bucket.sites, mesh))
    return train_bucket(groups, state, bucket, shuffle(state, bucket, 2))

  return jax.device_get(jax.jit(train)(state, bucket)[0].stacks)


@pytest.mark.parametrize("placement", ["by_sae", "by_sae_and_latent"])
def test_a_spread_bucket_trains_as_on_one_device(placement, monkeypatch):
  expected = trained("auto", 1, 1)
  asked = lambda width, mesh: width % mesh.shape["model"] == 0
  monkeypatch.setattr(layout, "splits_numbers", asked)
  found = trained(placement, 2, 2)
  for mine, theirs in zip(
    jax.tree.leaves(found), jax.tree.leaves(expected), strict=True
  ):
    np.testing.assert_allclose(mine, theirs, rtol=1e-3, atol=1e-6)
