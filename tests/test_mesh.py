"""Devices are laid out as a mesh that fits the machine."""

import dataclasses
import itertools
import re

import numpy as np
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
  ],
)
def test_impossible_meshes_are_refused(config, sentence):
  with pytest.raises(UserError, match=sentence):
    meshes.make(config)


@pytest.mark.parametrize("shape", [{"data": 0}, {"model": -1}])
def test_a_mesh_without_devices_is_refused(shape):
  ((name, value),) = shape.items()
  with pytest.raises(UserError, match=f"{name}={value} must be"):
    MeshConfig(**shape)


@dataclasses.dataclass(frozen=True)
class Chip:
  """The attributes that JAX's TPU devices have."""

  id: int
  coords: tuple[int, int, int]
  slice_index: int
  process_index: int = 0
  core_on_chip: int = 0
  platform: str = "tpu"
  device_kind: str = "TPU v5 lite"


def chips(*shape: int, slices: int = 1) -> list[Chip]:
  """Makes chips numbered along x first, as JAX does."""
  places = itertools.product(*map(range, reversed(shape)), range(slices))
  ordered = sorted(places, key=lambda place: place[-1])
  return [
    Chip(n, (x, y, 0), slice_index)
    for n, (y, x, slice_index) in enumerate(ordered)
  ]


def mean_hops(mesh, axis: int, size: int) -> float:
  """Returns the mean hops from a device to the next along an axis."""
  places = np.array([[one.coords for one in row] for row in mesh.devices])
  far = np.abs(places - np.roll(places, -1, axis))
  return np.minimum(far, size - far).sum(-1).mean()


@pytest.mark.parametrize("model", [2, 4, 8, 16])
def test_neighbours_in_the_mesh_are_neighbours_on_the_torus(model):
  """In order of number, devices along `data` would be up to 8.5 hops apart."""
  mesh = meshes.make(MeshConfig(model=model), chips(16, 16))
  assert len(set(mesh.devices.flat)) == mesh.size == 256
  assert mean_hops(mesh, 0, 16) <= 1.5
  assert mean_hops(mesh, 1, 16) <= 1.75


def test_slices_follow_one_another_along_data():
  mesh = meshes.make(MeshConfig(model=4), chips(4, 4, slices=3))
  of = [[one.slice_index for one in row] for row in mesh.devices]
  assert of == [[0] * 4] * 4 + [[1] * 4] * 4 + [[2] * 4] * 4


def test_what_is_split_over_model_never_crosses_slices():
  with pytest.raises(UserError, match="must not cross slices; use 1 or 2 or 4"):
    meshes.make(MeshConfig(model=8), chips(2, 2, slices=2))


def test_some_devices_of_one_host_need_no_shape():
  mesh = meshes.make(MeshConfig(data=3), chips(2, 2))
  assert [one.id for one in mesh.devices.flat] == [0, 1, 2]


def test_the_error_about_an_indivisible_size_names_a_mesh():
  mesh = meshes.make(MeshConfig(model=8))
  named = r"--mesh\.data=2 --mesh\.model=4, or make width a multiple of 8"
  with pytest.raises(UserError, match=named):
    meshes.check_divides("width", 12, mesh, "model")


@pytest.mark.parametrize("rows", [32, 48, 7])
@pytest.mark.parametrize("data", [None, 32, 8])
def test_following_errors_leads_to_a_mesh_of_the_whole_pod(rows, data):
  """64 chips of 16 hosts, and rows that 64 does not divide."""
  pod = [
    dataclasses.replace(chip, process_index=chip.id // 4)
    for chip in chips(8, 8)
  ]
  config = MeshConfig(data=data)
  for _ in range(4):
    try:
      mesh = meshes.make(config, pod)
      meshes.check_divides("bucket.rows", rows, mesh, "data")
      break
    except UserError as error:
      advice = str(error).rpartition(";")[2]
      found = dict(re.findall(r"--mesh\.(data|model)=(\d+)", advice))
      assert found or "omit" in advice
      given = {name: int(size) for name, size in found.items()}
      config = dataclasses.replace(config, **(given or {"data": None}))
  assert mesh.size == 64 and rows % mesh.shape["data"] == 0
