"""TPU slices that exist, and their devices, which need not be attached."""

import dataclasses
import math
import re
from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import Mesh

from jaxsae import chips
from jaxsae import mesh as meshes
from jaxsae.chips import GIB, Chip
from jaxsae.errors import UserError
from jaxsae.mesh import Device, MeshConfig

_FLAT = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
_SMALL_CUBES = ("2x2x1", "2x2x2", "2x2x4", "2x4x4")


@dataclasses.dataclass(frozen=True)
class Kind:
  """A generation of TPU.

  Attributes:
    name: its name in a topology, as in v5e.
    device_kind: JAX's name for its devices.
    hbm: bytes of a device's memory that the compiler lets a program use, by its
      message about programs that are too big (libtpu 0.0.40).
    dcn: bytes a second that a chip sends to other slices, one way
      (jax-ml.github.io/scaling-book).
    limits: the largest slice, along each axis.
    devices: devices per chip.
    options: options with which the compiler treats the chip as JAX does.
    small: shapes smaller than 4x4x4; larger ones consist of cubes of 4x4x4.
  """

  name: str
  device_kind: str
  hbm: float
  dcn: float
  limits: tuple[int, ...] = (16, 16)
  devices: int = 1
  options: tuple[tuple[str, str], ...] = ()
  small: tuple[str, ...] = _FLAT

  @property
  def chip(self) -> Chip:
    """Peak figures of one of its devices."""
    return chips.of(self.device_kind)

  def has(self, shape: tuple[int, ...]) -> bool:
    """Returns whether slices of that shape exist."""
    if "x".join(map(str, shape)) in self.small:
      return True
    ascends = sorted(shape) == list(shape)
    return (
      len(shape) == len(self.limits) == 3
      and ascends
      and all(
        size and size % 4 == 0 and size <= most
        for size, most in zip(shape, self.limits, strict=True)
      )
    )

  @property
  def shapes(self) -> str:
    """The shapes of slices that exist, in words."""
    if len(self.limits) == 2:
      return ", ".join(self.small)
    largest = "x".join(map(str, self.limits))
    return (
      f"{', '.join(self.small)}, 4x4x4, 4x4x8 and so on by fours, ascending,"
      f" up to {largest}"
    )


KINDS = {
  kind.name: kind
  for kind in (
    Kind(
      "v4",
      "TPU v4",
      hbm=30.75 * GIB,
      dcn=6.25e9,
      limits=(12, 16, 16),
      options=(("chip_config_name", "megacore"),),
      small=_SMALL_CUBES,
    ),
    Kind("v5e", "TPU v5 lite", hbm=15.75 * GIB, dcn=3.125e9),
    Kind(
      "v5p",
      "TPU v5",
      hbm=95.74 * GIB,
      dcn=6.25e9,
      limits=(16, 16, 24),
      small=_SMALL_CUBES,
    ),
    Kind("v6e", "TPU v6 lite", hbm=31.25 * GIB, dcn=1.25e10),
    Kind(
      "tpu7x",
      "TPU7x",
      hbm=94.75 * GIB,
      dcn=1.25e10,
      limits=(16, 16, 36),
      devices=2,
      small=("1x1x1", *_SMALL_CUBES),
    ),
  )
}


@dataclasses.dataclass(frozen=True)
class Slices:
  """One slice, or several of the same shape, that train one run.

  Attributes:
    kind: generation of TPU.
    shape: chips along each axis of one slice.
    count: number of slices.
  """

  kind: Kind
  shape: tuple[int, ...]
  count: int = 1

  def __str__(self) -> str:
    several = f"{self.count} x " if self.count > 1 else ""
    return f"{several}{self.topology}"

  @property
  def topology(self) -> str:
    """The topology of one slice, as in v5p:4x4x4."""
    return f"{self.kind.name}:{'x'.join(map(str, self.shape))}"

  @property
  def chips(self) -> int:
    """Number of chips of all slices, which are what is paid for."""
    return self.count * math.prod(self.shape)

  @property
  def devices(self) -> int:
    """Number of devices of all slices, as JAX counts them."""
    return self.chips * self.kind.devices


def parse(topology: str, count: int = 1) -> Slices:
  """Reads a topology, as in v5p:4x4x4, of one slice or of several.

  Raises:
    UserError: no such slice exists; names those that do.
  """
  if count < 1:
    raise UserError(f"--slices={count} must be 1 or more.")
  name, _, text = topology.partition(":")
  if name not in KINDS:
    raise UserError(
      f"--topology={topology} is not a TPU known here; use one of"
      f" {', '.join(KINDS)} and a shape, as in v5e:2x4 or v5p:4x4x4."
    )
  kind = KINDS[name]
  sizes = re.fullmatch(r"\d{1,3}(x\d{1,3})*", text) and text.split("x")
  shape = tuple(map(int, sizes or ()))
  if not kind.has(shape):
    raise UserError(
      f"--topology={topology} is not a slice that exists; those of {name} are"
      f" {kind.shapes}."
    )
  return Slices(kind, shape, count)


def make_mesh(config: MeshConfig, slices: Slices) -> Mesh:
  """Returns the mesh that a run makes on these slices.

  Raises:
    UserError: the mesh does not divide the slices' devices, or the compiler
      does not know the slices.
  """
  devices = find_devices(slices)
  mesh = meshes.make(config, devices)
  if mesh.size < len(devices):
    raise UserError(meshes.left_out(config, len(devices), str(slices)))
  return mesh


def find_devices(slices: Slices) -> Sequence[Device]:
  """Returns the slices' devices, in the order in which JAX numbers them."""
  from jax.experimental import topologies

  options: dict[str, Any] = dict(slices.kind.options)
  if math.prod(slices.shape) == 1:
    options["chips_per_host_bounds"] = (1, 1, 1)
  if slices.count > 1:
    options["num_slices"] = slices.count
  try:
    found = topologies.get_topology_desc(
      platform="tpu", topology_name=slices.topology, **options
    )
  except (jax.errors.JaxRuntimeError, NotImplementedError) as error:
    reason = str(error).partition("\n")[0]
    raise UserError(
      f"The TPU's compiler does not accept --topology={slices.topology}"
      f" ({reason}); install the libtpu that belongs to jax {jax.__version__}"
      ' with `pip install "jaxsae[tpu]"`.'
    ) from error
  return sorted(found.devices, key=lambda device: device.id)
