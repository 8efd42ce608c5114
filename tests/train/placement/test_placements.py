"""A stack trains to the same result in every placement."""

import dataclasses

import numpy as np
import pytest

from jaxsae.lm import Site
from jaxsae.mesh import MeshConfig
from jaxsae.train.placement import placements
from tests.train.toys import curve, make_config

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def alone(tmp_path_factory, texts, lm_path):
  """Three stacks on one device, and what they come to."""
  config = make_config(tmp_path_factory.mktemp("alone"), texts, lm_path)
  sites = (Site("resid", 1), Site("mlp", 0), Site("attn", 0))
  sae = dataclasses.replace(config.sae, sites=sites)
  config = dataclasses.replace(config, sae=sae, mesh=MeshConfig(1, 1))
  return config, curve(config)[0]


@pytest.mark.parametrize(("data", "model"), [(8, 1), (4, 2), (1, 8)])
def test_every_placement_gives_the_same_run(alone, replace, data, model):
  config, expected = alone
  for name in (*placements.ALL, "auto"):
    placed = replace(config, sae__placement=name, mesh=MeshConfig(data, model))
    found, state = curve(placed)
    np.testing.assert_allclose(found, expected, rtol=2e-3, err_msg=name)
    for stack in state.stacks:  # at rest all placements are one
      assert stack.sae.w_enc.addressable_shards[0].data.shape[-1] == 8
