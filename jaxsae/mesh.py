"""The one mesh that the language model and the autoencoders share."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import (
  AbstractMesh,
  AxisType,
  Mesh,
  NamedSharding,
  PartitionSpec,
  Sharding,
)

from jaxsae import overrides
from jaxsae.errors import UserError
from jaxsae.overrides import Count

T = TypeVar("T")
AnyMesh = TypeVar("AnyMesh", bound=Mesh | AbstractMesh)


class Device(Protocol):
  """The part of a `jax.Device` that is needed; jaxlib declares no types."""

  id: int
  platform: str
  process_index: int


@dataclasses.dataclass(frozen=True)
class MeshConfig:
  """Layout of the devices; both axes always exist."""

  # Devices that share the batch. None: all the rest.
  data: Count | None = None
  model: Count = 1  # devices that share the weights

  def __post_init__(self):
    overrides.check(self)


def make(config: MeshConfig, devices: Sequence[Device] | None = None) -> Mesh:
  """Makes the ('data', 'model') mesh over the devices of all hosts.

  On a TPU, neighbours in the mesh are neighbours on the torus where possible,
  and slices follow one another along `data`.

  Args:
    config: the mesh's shape.
    devices: devices to use instead of JAX's own, such as a pod's in a plan.

  Raises:
    UserError: there are too few devices, or the shape does not divide them.
  """
  devices = jax.devices() if devices is None else devices
  count, hosts = len(devices), len({one.process_index for one in devices})
  if config.data is None and count % config.model:
    raise UserError(
      f"--mesh.model={config.model} does not divide the {count} devices; use"
      f" {' or '.join(str(n) for n in divisors(count))}."
    )
  data = config.data or count // config.model
  if data * config.model > count:
    raise UserError(
      f"--mesh.data={data} by --mesh.model={config.model} needs"
      f" {data * config.model} devices; there are {count}."
    )
  if data * config.model < count and hosts > 1:
    raise UserError(left_out(config, count, "this pod"))
  axes = (AxisType.Auto, AxisType.Auto)
  laid = _lay(devices, data, config.model)
  return Mesh(laid, ("data", "model"), axis_types=axes)


def left_out(config: MeshConfig, count: int, where: str) -> str:
  """Says that a mesh leaves out devices, and which one does not."""
  data = config.data or count
  other = f"--mesh.model={count // data}, or omit --mesh.data"
  return (
    f"--mesh.data={data} by --mesh.model={config.model} leaves out some of the"
    f" {count} devices of {where}; to use all,"
    f" {'omit --mesh.data' if count % data else f'give {other}'}."
  )


def _lay(devices: Sequence[Device], data: int, model: int) -> np.ndarray:
  """Arranges the devices as an array [data, model]."""
  if data * model < len(devices):  # some of one host's; they form no torus
    return np.array(devices[: data * model]).reshape(data, model)
  slices = _slices(devices)
  each = len(devices) // slices
  if each % model:
    raise UserError(
      f"--mesh.model={model} does not divide the {each} devices of one slice,"
      " and a split over `model` must not cross slices; use"
      f" {' or '.join(str(n) for n in divisors(each))}."
    )
  if slices > 1:
    return mesh_utils.create_hybrid_device_mesh(
      (each // model, model),
      (slices, 1),
      devices,
      allow_split_physical_axes=True,
    )
  return mesh_utils.create_device_mesh(
    (data, model), devices, allow_split_physical_axes=True
  )


def _slices(devices: Sequence[Device]) -> int:
  """Returns the number of TPU slices; 1 for other hardware."""
  if devices[0].platform != "tpu":
    return 1
  return len({getattr(one, "slice_index", 0) for one in devices})


def shard(mesh: Mesh, *spec: str | tuple[str, ...] | None) -> NamedSharding:
  """Returns the sharding of one array, as in `shard(mesh, "data", None)`."""
  return NamedSharding(mesh, PartitionSpec(*spec))


def divide(mesh: AnyMesh, axis: str, parts: Mapping[str, int]) -> AnyMesh:
  """Divides one axis of a mesh into several; devices stay where they are.

  Args:
    mesh: the mesh.
    axis: the name of the axis.
    parts: the sizes of the new axes by name, the one that changes fastest last.
  """
  shape: dict[str, int] = {}
  for name, size in mesh.shape.items():
    shape |= parts if name == axis else {name: size}
  sizes, names = tuple(shape.values()), tuple(shape)
  types = (AxisType.Auto,) * len(names)
  if isinstance(mesh, AbstractMesh):
    divided = AbstractMesh(sizes, names, axis_types=types)
  else:
    divided = Mesh(mesh.devices.reshape(sizes), names, axis_types=types)
  return cast(AnyMesh, divided)


def batch_axes(mesh: Mesh | AbstractMesh) -> tuple[str, ...]:
  """Returns the axes other than `model`: `data`, or its parts."""
  return tuple(name for name in mesh.axis_names if name != "model")


def axes_size(mesh: Mesh | AbstractMesh, axes: Sequence[str]) -> int:
  """Returns the number of devices along some mesh axes together."""
  return math.prod(mesh.shape[axis] for axis in axes)


def constrain(tree: T, mesh: Mesh, axis: str) -> T:
  """Constrains arrays [N, …] to be sharded along N over one mesh axis.

  Scalars are replicated. Left to itself the compiler may choose another
  sharding, to suit what comes before or after, and move the arrays for it.
  """

  def hold(x):
    layout = shard(mesh, *([axis] if x.ndim else []))
    return jax.lax.with_sharding_constraint(x, layout)

  return jax.tree.map(hold, tree)


def on_device(tree: Any) -> int:
  """Returns the bytes of arrays, or of their shapes, that one device holds."""
  return sum(map(_shard_bytes, jax.tree.leaves(tree)))


def _shard_bytes(x: jax.Array | jax.ShapeDtypeStruct) -> int:
  assert isinstance(x.sharding, Sharding)
  return math.prod(x.sharding.shard_shape(x.shape)) * itemsize(x.dtype)


def itemsize(dtype: Any) -> int:
  """Returns the bytes of a number, or of a random key."""
  if jnp.issubdtype(dtype, jax.dtypes.prng_key):
    return 8  # two words of 32 bits
  return dtype.itemsize


def wait_for(tree: T) -> T:
  """Waits until the arrays are computed, and returns them.

  For programs that do not depend on one another. If they run at the same time,
  each may hold some devices and wait for the rest: where devices are threads
  of one CPU, XLA then ends the process.
  """
  return jax.block_until_ready(tree)


def check_divides(what: str, size: int, mesh: Mesh, axis: str) -> None:
  """Raises UserError unless the mesh axis divides the size.

  The error names a mesh of as many devices that does.
  """
  if size % mesh.shape[axis]:
    works = {axis: math.gcd(size, mesh.size)}
    other = next(name for name in mesh.shape if name != axis)
    works[other] = mesh.size // works[axis]
    raise UserError(
      f"--mesh.{axis}={mesh.shape[axis]} does not divide {what}={size}; give"
      f" --mesh.data={works['data']} --mesh.model={works['model']}, or make"
      f" {what} a multiple of {mesh.shape[axis]}."
    )


def divisors(n: int) -> list[int]:
  """Returns the divisors of a number, which may be large, in order."""
  small = [d for d in range(1, math.isqrt(n) + 1) if n % d == 0]
  return sorted({*small, *(n // d for d in small)})
