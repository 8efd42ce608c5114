"""Checks that replicas are equal on all devices, bit by bit.

A replica that differs, after a memory fault or because a host ran other code,
shows in no loss: each device continues with its own values, and a checkpoint
saves only one of them.
"""

import collections
import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from jaxsae import pod
from jaxsae.errors import RunError, first_few
from jaxsae.lm import Lm
from jaxsae.mesh import Device
from jaxsae.train.checkpoint.fingerprint import digest
from jaxsae.train.config.run import TrainConfig
from jaxsae.train.process.shutdown import resume_command
from jaxsae.train.state import TrainState


def check(
  config: TrainConfig,
  mesh: Mesh,
  step: int,
  state: TrainState,
  lm: Lm,
  saves: bool = False,
) -> None:
  """Compares replicas on all devices, where `check_replicas_every` says so.

  All processes reach the same result. Waits for the step, and takes as long as
  reading all weights once. One device has no replicas, so nothing is done.

  Args:
    config: the run's configuration.
    mesh: the mesh of devices.
    step: the number of buckets that are trained on.
    state: the state after them.
    lm: the language model.
    saves: whether a checkpoint is saved after this bucket.

  Raises:
    RunError: replicas differ; names the arrays and the devices.
  """
  every = config.check_replicas_every
  is_due = saves if every is None else step % every == 0
  is_due |= step == config.steps
  if mesh.size == 1 or not is_due:
    return
  differing = list(differences(mesh, {"state": state, "lm": lm}))
  if differing:
    raise RunError(_sentence(step, differing))


def differences(mesh: Mesh, tree: Any) -> Iterator[tuple[str, list, list]]:
  """Yields each array whose replicas differ: path, odd devices, other devices.

  The most common value counts as right. If two are equally common, the value
  that comes first in the mesh does.
  """
  found, _ = jax.tree_util.tree_flatten_with_path(tree)
  sums = [_hasher(mesh, x.sharding.spec)(x) for _, x in found]
  hashes = pod.to_host(jnp.stack(sums))
  for (path, x), of_array in zip(found, hashes, strict=True):
    for held in _groups(mesh, x, of_array):
      usual = collections.Counter(held.values()).most_common(1)[0][0]
      odd = [device for device, hash_ in held.items() if hash_ != usual]
      if odd:
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        yield name, odd, [device for device in held if device not in odd]


@functools.cache
def _hasher(mesh: Mesh, spec: PartitionSpec):
  """Makes: array → hashes of the parts on each of P devices, [P, 2].

  It takes one array, for many have the same shape, and compile once.

  The partitioner would hash one copy of a replicated array, or parts of several
  copies. Under shard_map each device hashes its own.
  """

  sharded = jax.shard_map(
    lambda part: digest(part)[None],
    mesh=mesh,
    in_specs=spec,
    out_specs=PartitionSpec(mesh.axis_names),
    check_vma=False,
  )
  return jax.jit(sharded)


def _groups(mesh: Mesh, x: jax.Array, hashes: np.ndarray) -> list[dict]:
  """For each part of an array, the devices that hold it → their hashes.

  Args:
    mesh: the mesh, of P devices.
    x: the array.
    hashes: uint32 [P, 2], one for the part on each device.
  """
  parts = x.sharding.devices_indices_map(x.shape)
  groups = collections.defaultdict(dict)
  for device, hash_ in zip(mesh.devices.flat, hashes, strict=True):
    groups[str(parts[device])][device] = tuple(hash_)
  return list(groups.values())


def _sentence(step: int, differing: list[tuple[str, list, list]]) -> str:
  arrays = [
    f"{name} on {_named(odd)} differs from {_named(others)}"
    for name, odd, others in differing
  ]
  some = first_few(arrays, separator="; ")
  return (
    f"step {step}: devices that should hold the same do not: {some}. One"
    " of them is faulty, or its host runs other code. Nothing was saved since"
    " the last checkpoint; to resume from it, or from the beginning if there is"
    f" none:\n  {resume_command()}"
  )


def _named(devices: list[Device]) -> str:
  """The first few devices, each with its process, as text."""
  names = [f"device {d.id} (process {d.process_index})" for d in devices]
  return first_few(names, 8)
