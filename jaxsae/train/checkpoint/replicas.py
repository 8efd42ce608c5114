"""Whether devices that should hold the same do, bit by bit.

A replica that differs, after a fault in a memory or a host that ran something
else, is seen in no loss: each device goes on with what it has, and what is
saved is one of them.
"""

import collections
import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from jaxsae import mesh as meshes
from jaxsae import pod
from jaxsae.errors import RunError, first_few
from jaxsae.lm import Lm
from jaxsae.train.checkpoint.fingerprint import digest
from jaxsae.train.config.run import TrainConfig
from jaxsae.train.process.shutdown import resume_command
from jaxsae.train.state import TrainState


def check(
  config: TrainConfig, mesh: Mesh, step: int, state: TrainState, lm: Lm
) -> None:
  """Compares what devices hold alike, every so many steps if that is asked for.

  All processes find the same. Waits for the step; its cost is that of reading
  all weights once.

  Raises:
    RunError: names arrays and devices that are not like the others.
  """
  every = config.check_replicas_every
  if every is None or step % every:
    return
  differing = list(differences(mesh, {"state": state, "lm": lm}))
  if differing:
    raise RunError(_sentence(step, differing))


def differences(mesh: Mesh, tree) -> Iterator[tuple[str, list, list]]:
  """Every array that replicas differ in: its path, odd devices, the others.

  Where as many devices hold one thing as another, none is known to be right;
  those that come first in the mesh are the others then.
  """
  found, _ = jax.tree_util.tree_flatten_with_path(tree)
  specs = tuple(x.sharding.spec for _, x in found)
  hashes = pod.to_host(_hasher(mesh, specs)(*(x for _, x in found)))
  for i, (path, x) in enumerate(found):
    for held in _groups(mesh, x, hashes[:, i]):
      usual = collections.Counter(held.values()).most_common(1)[0][0]
      odd = [device for device, hash_ in held.items() if hash_ != usual]
      if odd:
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        yield name, odd, [device for device in held if device not in odd]


@functools.cache
def _hasher(mesh: Mesh, specs: tuple[PartitionSpec, ...]):
  """Arrays with these specs → the hashes of each device's parts, [P, A, 2].

  Left to the partitioner, the hash of a replicated array would be made of one
  copy, or of parts of several. Mapped over devices, each hashes its own.
  """

  def each(*parts):
    return jnp.stack([digest(part) for part in parts])[None]

  spread = jax.shard_map(
    each,
    mesh=mesh,
    in_specs=specs,
    out_specs=PartitionSpec(mesh.axis_names),
    check_vma=False,
  )
  return jax.jit(spread, out_shardings=meshes.shard(mesh))


def _groups(mesh: Mesh, x: jax.Array, hashes: np.ndarray) -> list[dict]:
  """For each part of an array, the devices that hold it → the hash of theirs.

  Args:
    mesh: of P devices.
    x: the array.
    hashes: uint32 [P, 2], of what each of them holds.
  """
  parts = x.sharding.devices_indices_map(x.shape)
  groups = collections.defaultdict(dict)
  for device, hash_ in zip(mesh.devices.flat, hashes, strict=True):
    groups[str(parts[device])][device] = tuple(hash_)
  return list(groups.values())


def _sentence(step: int, differing: list[tuple[str, list, list]]) -> str:
  arrays = [
    f"{name} on {_named(odd)} is not as on {_named(others)}"
    for name, odd, others in differing
  ]
  some = first_few(arrays, separator="; ")
  return (
    f"step {step}: devices that should hold the same do not: {some}. One"
    " of them is faulty, or its host runs something else. Nothing was saved"
    " since the checkpoint before; to go on from that one, or from the"
    f" beginning if there is none:\n  {resume_command()}"
  )


def _named(devices: list[jax.Device]) -> str:
  """Each with its process, the first few."""
  names = [f"device {d.id} (process {d.process_index})" for d in devices]
  return first_few(names, 8)
