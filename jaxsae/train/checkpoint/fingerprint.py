"""Fingerprints of arrays, which show that a bit has changed.

They guard against accidents, not intent: a collision is easy to construct.
"""

import functools
import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from jax.typing import ArrayLike

# Two sums over the same words: a collision has to happen in both.
SEEDS = (0x9E3779B9, 0x7F4A7C15)


def fingerprints(tree: Any) -> dict[str, str]:
  """Returns the path of every array in a tree → 16 hexadecimal digits.

  They do not depend on how the arrays are sharded.
  """
  return {path: whole(rows) for path, rows in sums_of_rows(tree).items()}


def sums_of_rows(tree: Any) -> dict[str, np.ndarray]:
  """Returns the path of every array in a tree → `row_digests`, on the host."""
  found = jax.device_get(_each(_on_all_devices(tree))(tree))
  paths, _ = jax.tree_util.tree_flatten_with_path(found)
  return {jax.tree_util.keystr(path): sums for path, sums in paths}


def whole(rows: np.ndarray) -> str:
  """Returns the fingerprint of an array, from the digests of its rows."""
  return as_text(np.asarray(np.sum(rows, axis=0, dtype=np.uint32)))


def as_text(sums: np.ndarray) -> str:
  """Writes a digest as 16 hexadecimal digits."""
  return "".join(f"{int(part):08x}" for part in sums)


def combined(sums: Mapping[str, np.ndarray]) -> str:
  """Returns one digest of many arrays: 16 hexadecimal digits.

  Args:
    sums: the path of every array → its `digest`, on the host.
  """
  listed = [[path, *map(int, found)] for path, found in sorted(sums.items())]
  return hashlib.sha256(json.dumps(listed).encode()).hexdigest()[:16]


def digest(x: jax.Array) -> jax.Array:
  """Computes two sums, uint32 [2], of the bits of an array.

  Each word is scrambled together with its index, and all are summed. Scrambling
  is one to one, so one changed word always shows; several changed ones cancel
  in both sums with a chance of 2⁻⁶⁴.
  """
  return jnp.sum(row_digests(x), axis=0, dtype=jnp.uint32)


def row_digests(x: jax.Array, first: ArrayLike = 0) -> jax.Array:
  """Computes what each row x[i] adds to the `digest` of x: uint32 [rows, 2].

  Args:
    x: the array, or some consecutive rows of it.
    first: the index of the first of these rows.
  """
  words = jnp.atleast_1d(_words(x))
  stride = math.prod(words.shape[1:]) % 2**32
  index = _indices(words.shape)
  index += jnp.asarray(first, jnp.uint32) * jnp.uint32(stride)
  axes = tuple(range(1, words.ndim))
  sums = [
    jnp.sum(_scramble(words ^ _scramble(index + jnp.uint32(seed))), axes)
    for seed in SEEDS
  ]
  return jnp.stack(sums, axis=-1).astype(jnp.uint32)


@functools.cache
def _each(layout: NamedSharding | None):
  """Makes: tree → the digests of each array's rows, in that sharding."""
  each = lambda tree: jax.tree.map(row_digests, tree)
  return jax.jit(each, out_shardings=layout)


def _on_all_devices(tree: Any) -> NamedSharding | None:
  """Returns the sharding that replicates over a tree's mesh, if it has one."""
  layout = getattr(jax.tree.leaves(tree)[0], "sharding", None)
  if isinstance(layout, NamedSharding):
    return NamedSharding(layout.mesh, PartitionSpec())
  return None


def _words(x: jax.Array) -> jax.Array:
  """The bits as uint32, with one more axis if a value has several words."""
  if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
    x = jax.random.key_data(x)
  if x.dtype == jnp.bool_:
    return x.astype(jnp.uint32)
  size = min(x.dtype.itemsize, 4)
  words = jax.lax.bitcast_convert_type(x, jnp.dtype(f"uint{8 * size}"))
  return words.astype(jnp.uint32)


def _indices(shape: tuple[int, ...]) -> jax.Array:
  """The index of every word in row-major order, modulo 2³²."""
  place = jnp.zeros(shape, jnp.uint32)
  for axis in range(len(shape)):
    stride = math.prod(shape[axis + 1 :]) % 2**32
    index = jax.lax.broadcasted_iota(jnp.uint32, shape, axis)
    place += jnp.uint32(stride) * index
  return place


def _scramble(word: jax.Array) -> jax.Array:
  """MurmurHash3's 32-bit finaliser (Appleby, 2011), which is one to one."""
  word = (word ^ (word >> 16)) * jnp.uint32(0x85EBCA6B)
  word = (word ^ (word >> 13)) * jnp.uint32(0xC2B2AE35)
  return word ^ (word >> 16)
