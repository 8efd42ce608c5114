"""Who holds a device's memory."""

import dataclasses
import math

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jaxsae import mesh as meshes
from jaxsae.lm import GemmaConfig, Lm
from jaxsae.plan.compilation import Compilation
from jaxsae.train.config.run import TrainConfig
from jaxsae.train.placement.select import bucket_dtype
from jaxsae.train.state import TrainState


@dataclasses.dataclass(frozen=True)
class MemoryBreakdown:
  """Bytes of one device's memory.

  Attributes:
    lm: weights of the language model, those above the last site too: they are
      loaded, though the step does not read them.
    saes: weights of autoencoders, and counts of idle tokens and scales.
    moments: Adam's.
    bucket: activations of one step's tokens at every site.
    temporaries: all else, at the step's worst moment, the program included;
      None where it is not compiled.
  """

  lm: int
  saes: int
  moments: int
  bucket: int
  temporaries: int | None = None

  @property
  def known(self) -> int:
    """What is there at least, whatever the compiler makes of the rest."""
    return self.lm + self.saes + self.moments + self.bucket

  @property
  def total(self) -> int | None:
    if self.temporaries is None:
      return None
    return self.known + self.temporaries


def breakdown(
  config: TrainConfig,
  gemma: GemmaConfig,
  mesh: Mesh,
  arguments: tuple[TrainState, Lm, dict],
  compiled: Compilation | None,
) -> MemoryBreakdown:
  """Of shapes and shardings, and of what the compiler says.

  Args:
    config: the run's.
    gemma: the language model's sizes.
    mesh: of the devices.
    arguments: the step's arguments, as `abstract.arguments` makes them.
    compiled: the step, or None.
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
  if compiled.arguments is None:  # it does not fit; the message has the total
    rest = compiled.peak - known.known
  else:
    made = compiled.peak - compiled.arguments
    rest = made + on_device(batch) - known.bucket
  return dataclasses.replace(known, temporaries=max(0, rest))


def on_device(tree) -> int:
  """Bytes that one device holds of abstract arrays, or of arrays."""
  return sum(map(_share, jax.tree.leaves(tree)))


def in_all(tree) -> int:
  """Bytes of all of it, once."""
  return sum(x.size * _itemsize(x) for x in jax.tree.leaves(tree))


def _share(x) -> int:
  return math.prod(x.sharding.shard_shape(x.shape)) * _itemsize(x)


def _itemsize(x) -> int:
  if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
    return 8  # two words of 32 bits
  return x.dtype.itemsize


def _bucket(config, gemma, mesh, dtype) -> int:
  columns = sum(site.width(gemma) for site in config.sites)
  rows = config.bucket_tokens // meshes.over(mesh, ("data",))
  return rows * columns * dtype.itemsize
