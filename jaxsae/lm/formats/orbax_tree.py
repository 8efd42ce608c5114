"""Lists and reads trees of arrays that Orbax wrote.

Only the wanted arrays are read, a bounded number of bytes at a time, and every
failure becomes one sentence.
"""

import contextlib
import math
import os
from collections.abc import Sequence

import jax
from etils import epath

from jaxsae import storage
from jaxsae.errors import UserError
from jaxsae.files import is_remote
from jaxsae.lm.formats.layouts import Stored
from jaxsae.lm.formats.orbax_errors import cause_of, ignore_abandoned_reads
from jaxsae.lm.sharding import Path

_TREE = "_METADATA"  # the file beside the arrays of a tree
_STEP = "_CHECKPOINT_METADATA"  # the file in the folder that holds the items

# Bytes of arrays that are read concurrently; a larger array is read alone.
_AT_A_TIME = 64_000_000


def names(path: epath.Path) -> Sequence[str | None]:
  """Lists the trees in a checkpoint by name; None is the folder itself."""
  if not path.is_dir():
    return []
  if (path / _TREE).exists():
    return [None]
  return sorted(x.name for x in path.iterdir() if (x / _TREE).exists())


def arrays(path: epath.Path) -> list[Stored]:
  """Lists all arrays of a checkpoint from its metadata."""
  from orbax.checkpoint import v1 as ocp

  root, name = _root(path)
  with _damage_named(path):
    tree = ocp.metadata(root, checkpointable_name=name).metadata
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return [
    Stored(names_of(keys), tuple(leaf.shape), leaf.dtype, _bytes(leaf))
    for keys, leaf in leaves
    if keys and hasattr(leaf, "shape")
  ]


def _bytes(leaf) -> int:
  """Returns the bytes that reading an array takes, in whole chunks."""
  chunk = leaf.storage_metadata.chunk_shape or leaf.shape
  sizes = [(n, max(c, 1)) for n, c in zip(leaf.shape, chunk, strict=True)]
  whole = [-(-n // c) * c for n, c in sizes]
  return math.prod(whole) * leaf.dtype.itemsize


def restore(
  path: epath.Path, wanted: dict, largest: int
) -> dict[Path, jax.Array]:
  """Reads the wanted arrays and returns them by their keys.

  Args:
    path: the checkpoint.
    wanted: the checkpoint's tree, or part of it, with a `ShapeDtypeStruct` for
      each array that gives its dtype and sharding.
    largest: bytes that reading the largest array takes.
  """
  from orbax.checkpoint import v1 as ocp

  limit_retries()
  root, name = _root(path)
  only = ocp.options.PyTreeOptions.Loading(partial_load=True)
  most = 1 + max(
    _AT_A_TIME, largest
  )  # Orbax refuses arrays that are not below it
  with (
    _damage_named(path),
    ocp.Context(
      pytree_options=ocp.options.PyTreeOptions(loading=only),
      memory_options=ocp.options.MemoryOptions(read_concurrent_bytes=most),
    ),
  ):
    tree = ocp.load(root, wanted, checkpointable_name=name)
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return {names_of(keys): leaf for keys, leaf in leaves}


def limit_retries() -> None:
  """Limits how long Orbax's arrays wait for a store; else it is 15 minutes."""
  from orbax.checkpoint._src.serialization import tensorstore_utils

  # Orbax has no option for it; of these it makes TensorStore's contexts.
  for context in (
    tensorstore_utils._BASE_TS_CONTEXT,
    tensorstore_utils._DEFAULT_OCDBT_TS_CONTEXT,
  ):
    context["gcs_request_retries"] = storage.tensorstore_retries()


def _root(path):
  """Returns the folder of the items, and the name of the one to read.

  The name is None if the folder itself is the item.
  """
  if not is_remote(path):
    path = type(path)(os.path.abspath(path))
  found = names(path)
  if len(found) != 1:
    raise UserError(
      f"{path} holds several trees, {', '.join(map(str, found))}; give the path"
      " of one."
    )
  if found == [None] and (path.parent / _STEP).exists():
    return path.parent, path.name
  return path, found[0]


def names_of(path: jax.tree_util.KeyPath) -> Path:
  """Converts JAX's path of a leaf to the names of its keys."""
  return tuple(jax.tree_util.keystr((key,), simple=True) for key in path)


@contextlib.contextmanager
def _damage_named(path):
  """Raises errors of Orbax and TensorStore as one UserError."""
  ignore_abandoned_reads()
  try:
    yield
  except Exception as error:
    if is_remote(path) and (failure := storage.failure_of(error)):
      raise failure from error
    raise UserError(
      f"{path} cannot be read; it may be damaged or incomplete"
      f" ({cause_of(error)})."
    ) from error
