"""Memory of one device: what a run needs, and what there is.

All of it follows from shapes and shardings, so a run that cannot fit is refused
before anything is made. A plan adds what only the compiler knows.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from jax.sharding import Mesh

from jaxsae import chips
from jaxsae import mesh as meshes
from jaxsae.errors import UserError
from jaxsae.lm import Lm
from jaxsae.process import memory_limit
from jaxsae.train.config.run import TrainConfig
from jaxsae.train.placement.select import PlacementChoice, bucket_bytes
from jaxsae.train.state import TrainState

_GB = 1e9


@dataclasses.dataclass(frozen=True)
class MemoryBreakdown:
  """Bytes of one device's memory, by what they are used for.

  Attributes:
    lm: weights of the language model, including those above the last site: they
      are loaded, though the step does not read them.
    saes: weights of autoencoders, their scales and tokens since fired.
    moments: Adam's moments.
    bucket: activations of one step's tokens at every site.
    temporaries: all else at the step's peak, including the program; None if
      the step was not compiled.
  """

  lm: int
  saes: int
  moments: int
  bucket: int
  temporaries: int | None = None

  @property
  def known(self) -> int:
    """Bytes that are known without compiling: all but the temporaries."""
    return self.lm + self.saes + self.moments + self.bucket

  @property
  def total(self) -> int | None:
    """Bytes in total; None if the step was not compiled."""
    if self.temporaries is None:
      return None
    return self.known + self.temporaries


def breakdown(
  config: TrainConfig, mesh: Mesh, state: TrainState, lm: Lm
) -> MemoryBreakdown:
  """Computes what is known of a step's memory from shapes and shardings.

  Args:
    config: the run's config.
    mesh: the mesh of devices.
    state: the run's state, as shapes or as arrays.
    lm: the language model, likewise.
  """
  moments = sum(meshes.on_device(stack.moments) for stack in state.stacks)
  return MemoryBreakdown(
    lm=meshes.on_device(lm.params),
    saes=meshes.on_device(state) - moments,
    moments=moments,
    bucket=bucket_bytes(config, mesh, lm),
  )


def in_all(tree: Any) -> int:
  """Returns the bytes of arrays over all devices, without copies."""
  return sum(x.size * meshes.itemsize(x.dtype) for x in jax.tree.leaves(tree))


def check(
  config: TrainConfig,
  mesh: Mesh,
  state: TrainState,
  lm: Lm,
  choices: Sequence[PlacementChoice],
) -> None:
  """Raises UserError if a run cannot fit the devices.

  Args:
    config: the run's config.
    mesh: the mesh of devices.
    state: the shapes of the run's state.
    lm: the shapes of the language model.
    choices: the placement of each stack.
  """
  known = breakdown(config, mesh, state, lm)
  at_rest = known.saes + known.moments
  kept = sum(choice.time.kept for choice in choices)
  update = max(choice.time.held - choice.time.kept for choice in choices)
  check_room(
    {
      "the language model": known.lm,
      "the autoencoders and Adam's moments": max(at_rest, kept),
      "a bucket's activations": known.bucket,
      "one update, or reading a microbatch": max(
        update, _reading(config, mesh, lm)
      ),
    },
    mesh,
    "use fewer or narrower autoencoders (--sae.widths), a smaller bucket"
    " (--bucket.microbatches, --bucket.rows), smaller updates"
    " (--bucket.update_tokens) or more devices",
  )


def check_room(needed: Mapping[str, float], mesh: Mesh, remedies: str) -> None:
  """Raises UserError if what a device must hold is more than it has.

  Args:
    needed: what is held → its bytes on each device.
    mesh: the mesh of devices, which are there.
    remedies: what would need less.
  """
  total, there = sum(needed.values()), device_memory(mesh)
  if total <= there:
    return
  device = mesh.devices.flat[0]
  sharing = _sharing(mesh)
  parts = ", ".join(
    f"{_gb(sharing * size)} for {what}" for what, size in needed.items() if size
  )
  place = "this machine" if device.platform == "cpu" else "each device"
  raise UserError(
    f"The run needs {_gb(sharing * total)} of memory on {place}, and"
    f" {_gb(sharing * there)} are there: {parts}; {remedies}."
  )


def _gb(size: float) -> str:
  size /= _GB
  return f"{size:,.0f} GB" if size >= 100 else f"{size:.2g} GB"


def device_memory(mesh: Mesh) -> float:
  """Returns the bytes of memory that each device of a mesh has.

  Devices of a CPU share the memory of their process.
  """
  device = mesh.local_devices[0]
  if device.platform == "cpu":
    return memory_limit() / _sharing(mesh)
  stats = device.memory_stats() or {}
  return stats.get("bytes_limit") or chips.of(device.device_kind).hbm_bytes


def _sharing(mesh: Mesh) -> int:
  """Returns how many devices have one memory."""
  first = mesh.devices.flat[0]
  return len(mesh.local_devices) if first.platform == "cpu" else 1


def _reading(config: TrainConfig, mesh: Mesh, lm: Lm) -> int:
  """Returns the least bytes of the activations of one LM forward pass.

  Those of one block: the stream, what its MLP reads, and its gate.
  """
  data, model = mesh.shape["data"], mesh.shape["model"]
  numbers = 2 * lm.config.embed_dim + 2 * lm.config.hidden_dim // model
  itemsize = jax.tree.leaves(lm.params)[0].dtype.itemsize
  return config.rows // data * config.data.context * numbers * itemsize
