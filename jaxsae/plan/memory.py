"""Memory of one device, and what it is used for."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, Sharding

from jaxsae import mesh as meshes
from jaxsae.lm import GemmaConfig, Lm
from jaxsae.plan.compilation import Compilation
from jaxsae.token_batch import TokenBatch
from jaxsae.train.config.run import TrainConfig
from jaxsae.train.placement.select import bucket_dtype
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
  gemma: GemmaConfig,
  mesh: Mesh,
  arguments: tuple[TrainState, Lm, TokenBatch],
  compiled: Compilation | None,
) -> MemoryBreakdown:
  """Computes a breakdown from shapes, shardings and what the compiler says.

  Args:
    config: the run's config.
    gemma: the language model's sizes.
    mesh: the mesh of devices.
    arguments: the step's arguments, from `step.abstract_arguments`.
    compiled: the compiled step, or None.
  """
  state, lm, batch = arguments
  moments = sum(on_device(stack.moments) for stack in state.stacks)
  known = MemoryBreakdown(
    lm=on_device(lm.params),
    saes=on_device(state) - moments,
    moments=moments,
    bucket=_bucket(config, gemma, mesh, bucket_dtype(config, lm)),
  )
  if compiled is None or compiled.peak is None:
    return known
  if compiled.arguments is None:  # it does not fit; `peak` is the total
    rest = compiled.peak - known.known
  else:
    made = compiled.peak - compiled.arguments
    rest = made + on_device(batch) - known.bucket
  return dataclasses.replace(known, temporaries=max(0, rest))


def on_device(tree: Any) -> int:
  """Returns the bytes of arrays, or of their shapes, that one device holds."""
  return sum(map(_shard_bytes, jax.tree.leaves(tree)))


def in_all(tree: Any) -> int:
  """Returns the bytes of arrays over all devices, without copies."""
  return sum(x.size * _itemsize(x) for x in jax.tree.leaves(tree))


def _shard_bytes(x: jax.Array | jax.ShapeDtypeStruct) -> int:
  assert isinstance(x.sharding, Sharding)
  return math.prod(x.sharding.shard_shape(x.shape)) * _itemsize(x)


def _itemsize(x: jax.Array | jax.ShapeDtypeStruct) -> int:
  if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
    return 8  # two words of 32 bits
  return x.dtype.itemsize


def _bucket(
  config: TrainConfig, gemma: GemmaConfig, mesh: Mesh, dtype: jnp.dtype
) -> int:
  columns = sum(site.width(gemma) for site in config.sites)
  tokens = config.bucket_tokens // meshes.axes_size(mesh, ("data",))
  return tokens * columns * dtype.itemsize
