"""Memory of one device, with what only the compiler knows."""

import dataclasses

from jax.sharding import Mesh

from jaxsae import mesh as meshes
from jaxsae.lm import Lm
from jaxsae.plan.compilation import Compilation
from jaxsae.token_batch import TokenBatch
from jaxsae.train import memory
from jaxsae.train.config.run import TrainConfig
from jaxsae.train.memory import MemoryBreakdown as MemoryBreakdown
from jaxsae.train.memory import in_all as in_all
from jaxsae.train.state import TrainState


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
  known = memory.breakdown(config, mesh, state, lm)
  if compiled is None or compiled.peak is None:
    return known
  if compiled.arguments is None:  # it does not fit; `peak` is the total
    rest = compiled.peak - known.known
  else:
    made = compiled.peak - compiled.arguments
    rest = made + meshes.on_device(batch) - known.bucket
  return dataclasses.replace(known, temporaries=max(0, rest))
