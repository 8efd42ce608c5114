"""The one mesh that language model and autoencoders share."""

import dataclasses
import math
from collections.abc import Sequence

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import (
  AbstractMesh,
  AxisType,
  Mesh,
  NamedSharding,
  PartitionSpec,
)

from jaxsae.errors import UserError


@dataclasses.dataclass(frozen=True)
class MeshConfig:
  """How the devices are laid out; both axes always exist."""

  data: int | None = None  # devices that share the batch; None: all the rest
  model: int = 1  # devices that share the weights


def make(
  config: MeshConfig, devices: Sequence[jax.Device] | None = None
) -> Mesh:
  """The ('data', 'model') mesh over the devices of all hosts.

  On a TPU neighbours in the mesh are neighbours on the torus, as far as that
  can be, and slices follow one another along `data`.

  Args:
    config: its shape.
    devices: others than those that JAX has here, such as a pod's in a plan.

  Raises:
    UserError: there are not so many devices, or they do not divide.
  """
  devices = jax.devices() if devices is None else devices
  count, hosts = len(devices), len({one.process_index for one in devices})
  if config.model < 1 or (config.data is not None and config.data < 1):
    raise UserError(
      f"mesh {config.data}x{config.model} is empty; use 1 or more each way."
    )
  if config.data is None and count % config.model:
    raise UserError(
      f"--mesh.model={config.model} does not divide the {count} devices; use"
      f" {' or '.join(str(n) for n in _divisors(count))}."
    )
  data = config.data or count // config.model
  if data * config.model > count:
    raise UserError(
      f"--mesh.data={data} by --mesh.model={config.model} needs"
      f" {data * config.model} devices; there are {count}."
    )
  if data * config.model < count and hosts > 1:
    raise UserError(
      f"--mesh.data={data} by --mesh.model={config.model} leaves out some of"
      f" the {count} devices of this pod; leave --mesh.data away to use all."
    )
  axes = (AxisType.Auto, AxisType.Auto)
  laid = _lay(devices, data, config.model)
  return Mesh(laid, ("data", "model"), axis_types=axes)


def _lay(devices: Sequence[jax.Device], data: int, model: int) -> np.ndarray:
  """As [data, model]."""
  if data * model < len(devices):  # some of one host, of no shape of their own
    return np.array(devices[: data * model]).reshape(data, model)
  slices = _slices(devices)
  each = len(devices) // slices
  if each % model:
    raise UserError(
      f"--mesh.model={model} does not divide the {each} devices of one slice,"
      " and what is split over `model` must not cross slices; use"
      f" {' or '.join(str(n) for n in _divisors(each))}."
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


def _slices(devices: Sequence[jax.Device]) -> int:
  """How many tori; what is no TPU has none, whatever JAX calls its hosts."""
  if devices[0].platform != "tpu":
    return 1
  return len({getattr(one, "slice_index", 0) for one in devices})


def shard(mesh: Mesh, *spec: str | None) -> NamedSharding:
  """`shard(mesh, "data", None)`: the sharding of one array."""
  return NamedSharding(mesh, PartitionSpec(*spec))


def axes_size(mesh: Mesh | AbstractMesh, axes: Sequence[str]) -> int:
  """Among how many devices something is that axes of the mesh spread."""
  return math.prod(mesh.shape[axis] for axis in axes)


def constrain(tree, mesh: Mesh, axis: str):
  """Arrays [N, …] held to where N is spread over the mesh axis; scalars too.

  Left to itself the compiler may spread them otherwise, to suit what comes
  before or after, and move them for it.
  """

  def hold(x):
    layout = shard(mesh, *([axis] if x.ndim else []))
    return jax.lax.with_sharding_constraint(x, layout)

  return jax.tree.map(hold, tree)


def wait_for(tree):
  """The arrays, once they are there.

  For programs that need nothing of one another. Under way together, each may
  hold some devices and wait for the rest: where devices are threads of one
  CPU, XLA then ends the process.
  """
  return jax.block_until_ready(tree)


def check_divides(what: str, size: int, mesh: Mesh, axis: str) -> None:
  """Raises UserError unless the mesh axis divides the size."""
  if size % mesh.shape[axis]:
    works = " or ".join(str(n) for n in _divisors(size)[:8])
    raise UserError(
      f"--mesh.{axis}={mesh.shape[axis]} does not divide {what}={size}; make"
      f" --mesh.{axis} one of {works}, or change {what}."
    )


def _divisors(n: int) -> list[int]:
  return [d for d in range(1, n + 1) if n % d == 0]
