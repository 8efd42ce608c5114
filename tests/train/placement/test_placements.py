"""A stack trains to the same result in every placement."""

import numpy as np
import pytest

from jaxsae.lm import Site
from jaxsae.mesh import MeshConfig
from jaxsae.train.placement import placements
from tests.train.toys import curve


@pytest.mark.parametrize(("data", "model"), [(8, 1), (4, 2), (1, 8)])
def test_every_placement_gives_the_same_run(config, replace, data, model):
  sites = (Site("resid", 1), Site("mlp", 0), Site("attn", 0))
  config = replace(config, sae__sites=sites)
  expected, _ = curve(replace(config, mesh=MeshConfig(1, 1)))
  for name in (*placements.ALL, "auto"):
    placed = replace(config, sae__placement=name, mesh=MeshConfig(data, model))
    found, state = curve(placed)
    np.testing.assert_allclose(found, expected, rtol=2e-3, err_msg=name)
    for stack in state.stacks:  # at rest all placements are one
      assert stack.sae.w_enc.addressable_shards[0].data.shape[-1] == 8
