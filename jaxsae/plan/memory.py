"""Memory of one device, and what it is used for."""

import dataclasses
from typing import Any

import jax
from jax.sharding import Mesh

from jaxsae import mesh as meshes
from jaxsae.lm import Lm
from jaxsae.plan.compilation import Compilation
from jaxsae.token_batch import TokenBatch
from jaxsae.train.config.run import TrainConfig
from jaxsae.train.placement.select import bucket_bytes
from jaxsae.train.state import TrainState


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
  config: TrainConfig,
  mesh: Mesh,
  arguments: tuple[TrainState, Lm, TokenBatch],
  compiled: Compilation | None,
) -> MemoryBreakdown:
  """Computes a breakdown from shapes, shardings and what the compiler says.

  Args:
    config: the run's config.
    mesh: the mesh of devices.
    arguments: the step's arguments, from `sources.text.abstract_arguments`.
    compiled: the compiled step, or None.
  """
  state, lm, batch = arguments
  moments = sum(meshes.on_device(stack.moments) for stack in state.stacks)
  known = MemoryBreakdown(
    lm=meshes.on_device(lm.params),
    saes=meshes.on_device(state) - moments,
    moments=moments,
    bucket=bucket_bytes(config, mesh, lm),
  )
  if compiled is None or compiled.peak is None:
    return known
  if compiled.arguments is None:  # it does not fit; `peak` is the total
    rest = compiled.peak - known.known
  else:
    made = compiled.peak - compiled.arguments
    rest = made + meshes.on_device(batch) - known.bucket
  return dataclasses.replace(known, temporaries=max(0, rest))


def in_all(tree: Any) -> int:
  """Returns the bytes of arrays over all devices, without copies."""
  return sum(x.size * meshes.itemsize(x.dtype) for x in jax.tree.leaves(tree))
