"""Buckets on the devices, one read ahead, each with its data positions.

Grain's threads read and pack text ahead of the loop; putting a bucket on the
devices only starts the copy. So a bucket that is asked for right after a step
was handed over costs the devices nothing, and no thread of our own is needed.
"""

import dataclasses

import jax
import numpy as np
from jax.sharding import Mesh

from jaxsae import data
from jaxsae import mesh as meshes
from jaxsae.data import Batches, Rows
from jaxsae.token_batch import TokenBatch
from jaxsae.train.config.run import TrainConfig


@dataclasses.dataclass(frozen=True)
class Bucket:
  """What one step is trained on.

  Attributes:
    batch: on the devices, int [M, B, T] each.
    before: the data position from which it is read again.
    after: the data position to go on from when it has been trained on.
  """

  batch: TokenBatch
  before: dict
  after: dict


class Prefetcher:
  """Hands out buckets; at most one is read before it is asked for."""

  def __init__(self, config: TrainConfig, mesh: Mesh, batches: Batches):
    self._config, self._mesh, self._batches = config, mesh, batches
    self._ready: Bucket | None = None
    self._position = batches.get_state()

  @property
  def position(self) -> dict:
    """The data position behind the last bucket that was taken.

    What was read ahead is not behind it: a checkpoint with this position goes
    on with the first bucket that was not trained on.
    """
    return self._position

  def take(self) -> Bucket:
    """The next bucket."""
    self.read_ahead()
    bucket, self._ready = self._ready, None
    self._position = bucket.after
    return bucket

  def read_ahead(self) -> None:
    """Reads the next bucket, unless that is done; what fails is raised."""
    if self._ready is None:
      before = self._batches.get_state()
      batch = next_bucket(self._config, self._mesh, self._batches)
      self._ready = Bucket(batch, before, self._batches.get_state())


def open_batches(config: TrainConfig, mesh: Mesh, rows: Rows) -> Batches:
  """Buckets as flat batches [M·B, T], of which this process reads its part."""
  microbatches, size = config.bucket.microbatches, config.bucket.rows
  every = np.arange(microbatches * size).reshape(microbatches, size)
  mine = every[:, _columns(config, mesh)].reshape(-1)
  return data.batches(rows, every.size, config.data.seed, mine)


def next_bucket(
  config: TrainConfig, mesh: Mesh, batches: Batches
) -> TokenBatch[jax.Array]:
  """The next bucket on the devices: int [M, B, T] each."""
  rows, columns = next(batches), _columns(config, mesh)
  layout = meshes.shard(mesh, None, "data", None)

  def put(own: np.ndarray) -> jax.Array:
    own = own.reshape(config.bucket.microbatches, len(columns), -1)
    shape = (own.shape[0], config.bucket.rows, own.shape[2])

    def part(index):
      wanted = np.arange(config.bucket.rows)[index[1]]
      return own[:, np.searchsorted(columns, wanted)]

    return jax.make_array_from_callback(shape, layout, part)

  return jax.tree.map(put, rows.replace(documents=None))


def _columns(config: TrainConfig, mesh: Mesh) -> np.ndarray:
  """Which of the B rows of a microbatch lie on this process's devices."""
  every = np.arange(config.bucket.rows)
  layout = meshes.shard(mesh, "data")
  parts = layout.addressable_devices_indices_map(every.shape).values()
  return np.unique(np.concatenate([every[part] for part in parts]))
