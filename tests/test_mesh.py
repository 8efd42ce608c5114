"""Laying out the devices."""

import pytest

from jaxsae import mesh as meshes
from jaxsae.errors import UserError
from jaxsae.mesh import MeshConfig


@pytest.mark.parametrize(
  ("config", "shape"),
  [
    (MeshConfig(), (8, 1)),
    (MeshConfig(model=4), (2, 4)),
    (MeshConfig(data=1), (1, 1)),
    (MeshConfig(data=2, model=2), (2, 2)),
  ],
)
def test_shapes_over_eight_devices(config, shape):
  mesh = meshes.make(config)
  assert mesh.axis_names == ("data", "model")
  assert mesh.devices.shape == shape


@pytest.mark.parametrize(
  ("config", "sentence"),
  [
    (MeshConfig(model=3), "mesh.model=3 does not divide the 8 devices"),
    (MeshConfig(data=8, model=2), "needs 16 devices; there are 8"),
    (MeshConfig(data=0), "is empty"),
  ],
)
def test_impossible_meshes_are_refused(config, sentence):
  with pytest.raises(UserError, match=sentence):
    meshes.make(config)


def test_indivisible_sizes_name_what_would_divide():
  mesh = meshes.make(MeshConfig(model=8))
  with pytest.raises(UserError, match="one of 1 or 2 or 3 or 4 or 6 or 12"):
    meshes.check_divides("width", 12, mesh, "model")
