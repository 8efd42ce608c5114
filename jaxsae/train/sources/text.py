"""The language model on text as a source of activations.

Grain's threads read and pack text ahead of the loop; putting a bucket on the
devices only starts the copy. So a bucket that is asked for right after a step
was handed over costs the devices nothing, and no thread of our own is needed.

Shapes: M microbatches, B rows in each, T time, L = M·T tokens of one row of
the bucket, D site width.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.typing import DTypeLike

from jaxsae import data
from jaxsae import mesh as meshes
from jaxsae.data import Batches, Rows
from jaxsae.lm import GemmaConfig, Lm, Site, capture
from jaxsae.lm.weights import abstract_lm
from jaxsae.token_batch import TokenBatch
from jaxsae.train.config.run import TrainConfig
from jaxsae.train.placement.layout import spread
from jaxsae.train.placement.select import bucket_dtype
from jaxsae.train.sources.source import Bucket, Prefetcher
from jaxsae.train.state import TrainState, abstract_state
from jaxsae.train.step import READS
from jaxsae.train.update import Activations


class TextSource(Prefetcher):
  """Buckets of text, read by the language model; see `source.Source`.

  Args:
    config: the run's configuration.
    mesh: the mesh of devices.
    lm: the language model.
    batches: the text, from `open_batches`; `close` closes them.
    documents: the names of the text's documents.
  """

  def __init__(
    self,
    config: TrainConfig,
    mesh: Mesh,
    lm: Lm,
    batches: Batches,
    documents: Sequence[str] = (),
  ):
    super().__init__(batches.get_state())
    self._config, self._mesh = config, mesh
    self._batches, self._documents = batches, documents
    self.weights = lm

  @property
  def widths(self) -> dict[Site, int]:
    """The width D of every site."""
    sites = self._config.sites
    return {site: site.width(self.weights.config) for site in sites}

  @property
  def dtype(self) -> jnp.dtype:
    """The dtype of the activations."""
    return bucket_dtype(self._config, self.weights)

  def read(self, weights: Lm, batch: TokenBatch) -> Activations:
    """Reads a bucket with the language model: [B, L, D] at every site."""
    return read_bucket(self._config, self._mesh, weights, batch)

  def go_to(self, position: dict) -> None:
    """Goes on from a position that a checkpoint holds."""
    self._batches.set_state(position)
    self._start_at(position)

  def provenance(self, bucket: Bucket) -> dict:
    """Returns the position of a bucket, its rows, and its documents' names."""
    contents = self._batches.contents(bucket.before)
    names = [self._documents[i] for i in contents["documents"]]
    return bucket.before | contents | {"documents": names}

  def describe(self, bucket: Bucket) -> str:
    """Describes where the bucket lies in the data, in a few words."""
    number = bucket.before["next_batch"]
    part = self._batches.contents(bucket.before)["pass"]
    return f"batch {number} of the data, in pass {part}"

  def close(self) -> None:
    """Ends the threads that read ahead."""
    self._batches.close()

  def _next(self) -> Bucket:
    before = self._batches.get_state()
    batch = next_bucket(self._config, self._mesh, self._batches)
    return Bucket(batch, before, self._batches.get_state())


def open_batches(config: TrainConfig, mesh: Mesh, rows: Rows) -> Batches:
  """Opens buckets as flat batches [M·B, T]; this process reads its part."""
  microbatches, size = config.microbatches, config.rows
  every = np.arange(microbatches * size).reshape(microbatches, size)
  mine = every[:, _columns(config, mesh)].reshape(-1)
  return data.batches(rows, every.size, config.data.seed, mine)


def next_bucket(
  config: TrainConfig, mesh: Mesh, batches: Batches
) -> TokenBatch[jax.Array]:
  """Puts the next bucket on the devices: int [M, B, T] each."""
  rows, columns = next(batches), _columns(config, mesh)
  layout = meshes.shard(mesh, None, "data", None)

  def put(own: np.ndarray) -> jax.Array:
    own = own.reshape(config.microbatches, len(columns), -1)
    shape = (own.shape[0], config.rows, own.shape[2])

    def part(index):
      wanted = np.arange(config.rows)[index[1]]
      return own[:, np.searchsorted(columns, wanted)]

    return jax.make_array_from_callback(shape, layout, part)

  return jax.tree.map(put, rows.replace(documents=None))


def _columns(config: TrainConfig, mesh: Mesh) -> np.ndarray:
  """Returns which of the B rows of a microbatch this process's devices hold."""
  every = np.arange(config.rows)
  layout = meshes.shard(mesh, "data")
  parts = layout.addressable_devices_indices_map(every.shape).values()
  return np.unique(np.concatenate([every[part] for part in parts]))


def read_bucket(
  config: TrainConfig, mesh: Mesh, lm: Lm, batch: TokenBatch
) -> Activations:
  """Reads a bucket with the language model: [B, L, D] at every site.

  Rows are spread over `data`, and the numbers of each token over `model`.
  Special tokens and padding are masked: they are never trained on.
  """

  count, rows, length = batch.tokens.shape
  dtype = bucket_dtype(config, lm)

  def read(bucket, numbered):
    number, some = numbered
    seen = capture(lm, some.tokens, *config.sites, **some.packing)
    # Written where they stay: a copy in another order would double the bucket.
    written = {
      site: jax.lax.dynamic_update_index_in_dim(
        x, spread(seen[site].astype(dtype), mesh), number, axis=1
      )
      for site, x in bucket.items()
    }
    return spread(written, mesh), None

  empty = {
    site: jnp.zeros((rows, count, length, site.width(lm.config)), dtype)
    for site in config.sites
  }
  with jax.named_scope(READS):
    numbered = jnp.arange(count), batch
    seen, _ = jax.lax.scan(read, spread(empty, mesh), numbered)
  mask = lm.text_mask(batch.tokens, batch.segments)
  mask = jnp.swapaxes(mask, 0, 1).reshape(rows, -1)
  joined = {s: x.reshape(rows, -1, x.shape[-1]) for s, x in seen.items()}
  return Activations(spread(joined, mesh), meshes.constrain(mask, mesh, "data"))


def abstract_arguments(
  config: TrainConfig,
  gemma: GemmaConfig,
  mesh: Mesh,
  dtype: DTypeLike = jnp.bfloat16,
) -> tuple[TrainState, Lm, TokenBatch]:
  """Returns a step's state, language model and batch as abstract arrays.

  Args:
    config: the run's configuration.
    gemma: the language model's sizes.
    mesh: the mesh, of devices that need not exist here.
    dtype: the dtype of the language model's weights.
  """
  return (
    abstract_state(config, gemma, mesh),
    abstract_lm(gemma, mesh, config.fsdp, dtype),
    _abstract_batch(config, mesh),
  )


def _abstract_batch(
  config: TrainConfig, mesh: Mesh
) -> TokenBatch[jax.ShapeDtypeStruct]:
  shape = (config.microbatches, config.rows, config.data.context)
  layout = meshes.shard(mesh, None, "data", None)
  ids = jax.ShapeDtypeStruct(shape, jnp.int32, sharding=layout)
  return TokenBatch(positions=ids, segments=ids, tokens=ids)
