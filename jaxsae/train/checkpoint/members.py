"""Reads autoencoders one by one from a checkpoint, without what trains them.

Orbax reads whole arrays [S, …]. TensorStore reads one row of them, which a
checkpoint keeps in chunks of its own, so the memory that it takes is that of
one autoencoder.
"""

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tensorstore
from etils import epath

from jaxsae import storage
from jaxsae.files import is_remote
from jaxsae.train.checkpoint.corruption import Corrupted
from jaxsae.train.checkpoint.fingerprint import as_text, row_digests, whole
from jaxsae.train.checkpoint.saved import SavedStack

_BLOCK = 2**26  # bytes that are digested at a time
_INDEX_BYTES = 100_000_000  # of the index of all arrays, kept while one is read
_ITEM = "state"  # the folder in which Orbax keeps the arrays


@dataclasses.dataclass(frozen=True, eq=False)
class Members:
  """The autoencoders of one checkpoint.

  Attributes:
    step: the step of the checkpoint.
    folder: its folder.
    shapes: the path of every array → its shape, as in the manifest.
    prints: the path of every array → its fingerprint.
    row_prints: the path of every array → the fingerprint of each of its rows;
      None in checkpoints that older releases made.
  """

  step: int
  folder: epath.Path
  shapes: Mapping[str, tuple[int, ...]]
  prints: Mapping[str, str]
  row_prints: Mapping[str, list[str]] | None
  _whole_stacks: set[int] = dataclasses.field(default_factory=set)

  def load(self, stack: int, member: int, like: SavedStack) -> SavedStack:
    """Reads one autoencoder and its scales; waits for no other process.

    Args:
      stack: the index of its stack.
      member: its index in the stack.
      like: shapes and shardings of the arrays to read, without the leading S.

    Raises:
      Corrupted: an array cannot be read.
    """
    read = lambda path, x: self._row(_name(stack, path), member, x)
    return jax.tree_util.tree_map_with_path(read, like)

  def check(self, stack: int, member: int, found: SavedStack) -> None:
    """Raises Corrupted unless what `load` returned is what was saved.

    All processes that hold a part of the arrays must call this.
    """
    if self.row_prints is None:
      self._check_whole(stack, found)
      return
    for name, x in _arrays(stack, found):
      if as_text(_digest(x, member)) != self.row_prints[name][member]:
        raise Corrupted(f"row {member} of its {name} is not what was saved")

  def _check_whole(self, stack: int, like: SavedStack) -> None:
    """Checks all members of a stack, where only all together can be checked.

    It takes reading them all, so it is done once for each stack.
    """
    if stack in self._whole_stacks:
      return
    for name, x in _arrays(stack, like):
      count = self.shapes[name][0]
      rows = [_digest(self._row(name, i, x), i) for i in range(count)]
      if whole(np.stack(rows)) != self.prints[name]:
        raise Corrupted(f"its {name} is not what was saved")
    self._whole_stacks.add(stack)

  def _row(self, name: str, index: int, like: Any) -> jax.Array:
    """Reads a row of one array onto the devices, each its own part.

    Args:
      name: the path of the array.
      index: the index of the row.
      like: has its shape, dtype and sharding.
    """
    try:
      row = self._open(name)[index]
      if row.shape != like.shape or row.dtype.numpy_dtype != like.dtype:
        raise Corrupted(f"its {name} has rows {row.dtype.name}{row.shape}")

      @functools.cache  # several devices may hold the same part
      def part(*ends: tuple[int | None, int | None]) -> np.ndarray:
        return row[tuple(slice(*of) for of in ends)].read().result()

      return jax.make_array_from_callback(
        like.shape,
        like.sharding,
        lambda of: part(*((s.start, s.stop) for s in of or ())),
      )
    except (ValueError, OSError) as error:
      if is_remote(self.folder) and (failure := storage.failure_of(error)):
        raise failure from error
      raise Corrupted(f"its {name} cannot be read ({error})") from error

  def _open(self, name: str) -> tensorstore.TensorStore:
    folder = str(self.folder / _ITEM)
    base = folder if is_remote(folder) else f"file://{folder}"
    # Orbax names `.stacks[0].sae.b_enc` as `stacks.0.sae.b_enc`.
    key = name.replace("[", ".").replace("]", "").lstrip(".")
    store = {"driver": "ocdbt", "base": base, "path": f"{key}/"}
    store["cache_pool"] = "cache_pool#index"
    spec = {
      "driver": "zarr3",
      "kvstore": store,
      # A checkpoint never changes, so nothing is asked for again.
      "recheck_cached_data": "open",
      "recheck_cached_metadata": "open",
    }
    context = {
      "cache_pool#index": {"total_bytes_limit": _INDEX_BYTES},
      "gcs_request_retries": storage.tensorstore_retries(),
    }
    return tensorstore.open(
      spec, open=True, read=True, context=tensorstore.Context(context)
    ).result()


def _name(stack: int, path: tuple) -> str:
  return f".stacks[{stack}]{jax.tree_util.keystr(path)}"


def _arrays(stack: int, tree: SavedStack) -> Iterator[tuple[str, Any]]:
  for path, x in jax.tree_util.tree_flatten_with_path(tree)[0]:
    yield _name(stack, path), x


def _digest(row: jax.Array, index: int) -> np.ndarray:
  """Returns what a row adds to the digest of its array: uint32 [2]."""
  if row.ndim < 2 or len(row.devices()) > 1:
    return np.asarray(_sum_of_rows(row[None], index))
  # In blocks, because it takes several times the memory of what it digests.
  size = max(1, _BLOCK // (row.nbytes // len(row)))
  sums = [
    np.asarray(_sum_of_rows(row[at : at + size], index * len(row) + at))
    for at in range(0, len(row), size)
  ]
  return np.asarray(np.sum(sums, axis=0, dtype=np.uint32))


@jax.jit
def _sum_of_rows(rows: jax.Array, first: jax.Array) -> jax.Array:
  return jnp.sum(row_digests(rows, first), axis=0, dtype=jnp.uint32)
