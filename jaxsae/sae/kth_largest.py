"""The k-th largest of many numbers, by counting instead of sorting.

Floats are in the order of their bits, read as whole numbers, but for the sign.
So the k-th largest is found from its highest bits down: it is the largest float
that k of the numbers reach. Each pass counts how many reach a few floats and
settles BITS bits. Only counts cross devices, and k may be traced.

On two cores of a CPU the 64 largest of each of 1,024 rows of 16,384 take 52 ms,
where `lax.top_k` takes 5.3 s and one product with a [16384, 256] matrix 109 ms
(2026-11-21, on a busy machine: medians of 7 interleaved turns).

Shapes: N tokens, F latents.
"""

import operator

import jax
import jax.numpy as jnp

# Three counts in one pass cost less than one in each of two; fifteen cost more.
BITS = 2


def kth_largest(x: jax.Array, k: jax.Array | int) -> jax.Array:
  """The k-th largest of each row: [..., F] and a whole number → [..., 1].

  Where k is 0 it is ∞, and where k is over F, -∞. NaN counts as smallest.
  """
  return _search(x, k, (x.ndim - 1,))


def kth_largest_of_all(x: jax.Array, k: jax.Array | int) -> jax.Array:
  """The k-th largest of all: [N, F] and a whole number → [1, 1]."""
  return _search(x, k, (0, 1))


def _search(x, k, axes):
  x = jax.lax.stop_gradient(x)
  bits = jnp.finfo(x.dtype).bits
  shape = [1 if axis in axes else n for axis, n in enumerate(x.shape)]
  unit = jnp.ones(shape, f"uint{bits}")

  def refine(i, found):
    shift = (bits - BITS * (i + 1)).astype(found.dtype)
    tried = [found + (step * unit << shift) for step in range(1, 2**BITS)]
    counts = _reach(x, [_float(one, x.dtype) for one in tried], axes)
    digit = sum((count >= k).astype(found.dtype) for count in counts)
    return found + (digit << shift)

  found = jax.lax.fori_loop(0, bits // BITS, refine, 0 * unit)
  found = _float(found, x.dtype)
  # A device may take numbers below the smallest normal one for zero.
  return jnp.where(found == 0, jnp.zeros_like(found), found)


def _float(ordered: jax.Array, dtype) -> jax.Array:
  """Whole numbers → floats in their order; what would be no number is ±∞."""
  sign = jnp.array(1, ordered.dtype) << (jnp.finfo(dtype).bits - 1)
  raw = jnp.where(ordered >= sign, ordered ^ sign, ~ordered)
  value = jax.lax.bitcast_convert_type(raw, dtype)
  end = jnp.where(ordered >= sign, jnp.inf, -jnp.inf).astype(dtype)
  return jnp.where(jnp.isnan(value), end, value)


def _reach(x, levels, axes):
  """How many of x over `axes` are at least each of the levels."""
  reach = [(x >= level).astype(jnp.uint32) for level in levels]
  # One reduction of several operands, which reads x once.
  add = lambda a, b: jax.tree.map(operator.add, a, b)
  counts = jax.lax.reduce(reach, [jnp.uint32(0)] * len(reach), add, axes)
  return [jnp.expand_dims(count, axes) for count in counts]
