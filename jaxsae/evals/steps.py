"""Held-out text in steps that fit the devices, and work in chunks of a step.

A step is one forward pass: some rows for each device, split over `data`. Every
process feeds the rows of its own devices. Rows that are missing at the end are
padding, which counts nowhere.

Shapes: B rows of a step, T time, D site width, F latents, C time of a chunk.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.sharding import Mesh

from jaxsae import mesh as meshes
from jaxsae import pod
from jaxsae.brief import fields
from jaxsae.lm import Lm, Site
from jaxsae.lm.sharding import rows_on_device
from jaxsae.sae import Sae
from jaxsae.token_batch import TokenBatch

# Of one device: tokens in a forward pass, bytes of activations that are kept
# for autoencoders to read, and bytes of float32 latents of one autoencoder.
_TOKENS = 8192
_CAPTURED = 2**30
_LATENTS = 2**28


def rows_of_step(
  lm: Lm, batch: int, context: int, sites: Iterable[Site] = ()
) -> int:
  """Returns the number of rows in a step, a multiple of the mesh's `data`.

  Args:
    lm: the language model.
    batch: rows in a batch, which a step exceeds only to fill the devices.
    context: tokens in a row.
    sites: sites whose activations are kept for the whole step.
  """
  data = 1 if lm.mesh is None else lm.mesh.shape["data"]
  most = [batch // data, _TOKENS // context]
  size = lm.params["embedder"]["input_embedding"].dtype.itemsize
  kept = size * context * sum(site.width(lm.config) for site in sites)
  if kept:
    most.append(_CAPTURED // kept)
  return data * max(1, min(most))


@dataclasses.dataclass(frozen=True)
class Step:
  """The rows of one forward pass.

  Attributes:
    text: the rows on the devices, split over `data`, without `documents`.
    host: the rows on the host, with the document of each token.
  """

  text: TokenBatch[jax.Array] | TokenBatch[np.ndarray]
  host: TokenBatch[np.ndarray]

  @property
  def documents(self) -> np.ndarray:
    """The document of each token, int [B, T]."""
    assert self.host.documents is not None
    return self.host.documents


def in_steps(
  lm: Lm, batches: Iterable[TokenBatch], sites: Iterable[Site] = ()
) -> Iterator[Step]:
  """Cuts batches of equal shape into steps and puts them on the devices.

  Where a batch names no documents, each segment of a row is one.

  Args:
    lm: the language model, on whose mesh they are put.
    batches: the text, [any, T], whole in every process, or sharded arrays.
    sites: sites whose activations are kept for the whole step.
  """
  rest, size, rows_before = None, 0, 0
  for batch in batches:
    batch = _with_documents(pod.to_host(batch), rows_before)
    rows, context = batch.tokens.shape
    rows_before += rows
    size = size or rows_of_step(lm, rows, context, sites)
    *steps, rest = _cut(batch if rest is None else _join(rest, batch), size)
    yield from (_step(lm.mesh, step) for step in steps)
  if rest is not None and len(rest.tokens):
    more = ((0, size - len(rest.tokens)), (0, 0))
    yield _step(lm.mesh, jax.tree.map(lambda x: np.pad(x, more), rest))


def _with_documents(
  batch: TokenBatch[np.ndarray], rows_before: int
) -> TokenBatch[np.ndarray]:
  """Returns a batch that names the document of every token."""
  if batch.documents is not None:
    return batch
  rows, context = batch.tokens.shape
  first = (rows_before + np.arange(rows)[:, None]) * (context + 1)
  return batch.replace(documents=first + batch.segments)


def _step(mesh: Mesh | None, batch: TokenBatch[np.ndarray]) -> Step:
  return Step(over_data(mesh, batch.replace(documents=None)), batch)


def _join(*parts: TokenBatch[np.ndarray]) -> TokenBatch[np.ndarray]:
  return jax.tree.map(lambda *arrays: np.concatenate(arrays), *parts)


def _cut(
  batch: TokenBatch[np.ndarray], size: int
) -> list[TokenBatch[np.ndarray]]:
  """Cuts a batch into parts of `size` rows and one of fewer, maybe none."""
  starts = range(0, len(batch.tokens) + 1, size)
  return [
    jax.tree.map(lambda x, at=at: x[at : at + size], batch) for at in starts
  ]


def over_data(mesh: Mesh | None, batch: TokenBatch[np.ndarray]) -> Any:
  """Puts a batch on the devices, its rows split over `data`.

  Args:
    mesh: the mesh, whose `data` divides the rows; None leaves them on the host.
    batch: the whole batch, in every process.
  """
  if mesh is None:
    return batch
  layout = meshes.shard(mesh, "data", None)
  return jax.tree.map(
    lambda x: jax.make_array_from_callback(x.shape, layout, x.__getitem__),
    batch,
  )


def over_time(chunks: jax.Array, time: int) -> jax.Array:
  """Joins what `ChunkedSae.map` stacked: [chunks, B, C, …] → [B, T, …]."""
  joined = jnp.swapaxes(chunks, 0, 1)
  return joined.reshape(len(joined), -1, *joined.shape[3:])[:, :time]


class ChunkedSae(struct.PyTreeNode):
  """An autoencoder that reads a few tokens of every row at a time.

  Its latents are split over `model`, and rows over `data`. Products have the
  precision of float32 on every kind of device.

  Attributes:
    sae: the autoencoder.
    mesh: the mesh of the rows; None: one device.
  """

  sae: Sae
  mesh: Mesh | None = struct.field(pytree_node=False)

  __repr__ = fields

  @property
  def w_dec(self) -> jax.Array:
    """The directions of the latents, [F, D]."""
    return self.sae.w_dec

  def encode(self, x: jax.Array) -> jax.Array:
    """Encodes activations [..., D_in] as latents [..., F], all at once."""
    return self.sae.encode(x)

  def __call__(self, x: jax.Array) -> jax.Array:
    """Reconstructs activations, float32 [B, T, D_in] → [B, T, D]."""
    (made,) = self.map(lambda sae, x: (sae(x),), x)
    return over_time(made, x.shape[1])

  def map(
    self,
    function: Callable[..., tuple[Any, ...]],
    *arrays: jax.Array,
  ) -> Sequence[Any]:
    """Calls `function(sae, *arrays [B, C, …])` on each chunk.

    Args:
      function: returns arrays, or pytrees of them; they are stacked along a
        new first axis.
      *arrays: [B, T, …]; zeros are added to fill the last chunk.
    """
    rows, time = arrays[0].shape[:2]
    size = self._chunk(rows, time)
    fill = lambda x: ((0, 0), (0, -time % size)) + ((0, 0),) * (x.ndim - 2)
    filled = [jnp.pad(x, fill(x)) for x in arrays]
    sae = self._over_model()

    def of_chunk(start):
      cut = lambda x: jax.lax.dynamic_slice_in_dim(x, start, size, axis=1)
      with jax.default_matmul_precision("highest"):
        return function(sae, *map(cut, filled))

    return jax.lax.map(of_chunk, jnp.arange(0, time, size))

  def _chunk(self, rows: int, time: int) -> int:
    """Returns C, the number of tokens that a chunk takes of each row."""
    model = 1 if self.mesh is None else self.mesh.shape["model"]
    tokens = _LATENTS * model // (4 * self.sae.width)
    return min(time, max(1, tokens // rows_on_device(rows, self.mesh)))

  def _over_model(self) -> Sae:
    """Gathers the autoencoder over `data`; its latents stay over `model`."""
    if self.mesh is None:
      return self.sae
    model = "model" if self.sae.width % self.mesh.shape["model"] == 0 else None
    shard = functools.partial(meshes.shard, self.mesh)
    layout = self.sae.replace(
      w_enc=shard(None, model),
      b_enc=shard(model),
      w_dec=shard(model, None),
      b_dec=shard(),
      threshold=shard(model),
      w_skip=None if self.sae.w_skip is None else shard(),
    )
    return jax.lax.with_sharding_constraint(self.sae, layout)
