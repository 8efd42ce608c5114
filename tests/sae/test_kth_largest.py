"""The k-th largest by counting is the k-th largest by sorting."""

import functools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from jaxsae.sae import kth_largest


def numbers(rows=16, columns=40, dtype=np.float32):
  """Draws numbers of both signs and very different sizes, with ties."""
  rng = np.random.default_rng(0)
  x = rng.normal(size=(rows, columns)) * 10.0 ** rng.integers(
    -20, 20, (rows, columns)
  )
  x[:, :6] = np.float32(1.5)
  x[:, 6:8] = 0.0
  x[:, 8] = -np.inf
  x[:, 9] = np.inf
  return x.astype(dtype)


@pytest.mark.parametrize("k", [1, 2, 7, 20, 39, 40])
def test_the_kth_largest_of_each_row(k):
  x = numbers()
  kth = np.sort(x, axis=1)[:, -k][:, None]
  np.testing.assert_array_equal(kth_largest.kth_largest(x, k), kth)


@pytest.mark.parametrize("k", [1, 13, 200, 640])
def test_the_kth_largest_of_all(k):
  x = numbers()
  np.testing.assert_array_equal(
    kth_largest.kth_largest_of_all(x, k), np.sort(x, axis=None)[[[-k]]]
  )


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float64])
def test_other_floats(dtype):
  with jax.enable_x64(True):
    x = jnp.asarray(np.clip(numbers(dtype=np.float64), -1e4, 1e4), dtype)
    found = kth_largest.kth_largest(x, 11)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, jnp.sort(x, axis=1)[:, -11:-10])


def test_any_leading_axes():
  x = numbers()
  many = kth_largest.kth_largest(x.reshape(2, 8, 40), 5)
  np.testing.assert_array_equal(
    many.reshape(16, 1), kth_largest.kth_largest(x, 5)
  )
  np.testing.assert_array_equal(
    kth_largest.kth_largest(x[3], 5), kth_largest.kth_largest(x, 5)[3]
  )


def test_k_may_differ_between_members_of_a_stack():
  x = numbers().reshape(4, 4, 40)
  ks = jnp.array([1, 5, 30, 40])
  for rank in (kth_largest.kth_largest, kth_largest.kth_largest_of_all):
    alone = [rank(one, k) for one, k in zip(x, ks, strict=True)]
    np.testing.assert_array_equal(jax.vmap(rank)(x, ks), jnp.stack(alone))


def test_no_value_reaches_the_cut_for_k_of_0_and_all_that_for_a_large_k():
  x = numbers()[:, 10:]
  assert not np.any(x >= kth_largest.kth_largest(x, 0)) and np.all(
    x >= kth_largest.kth_largest(x, 99)
  )
  assert not np.any(x >= kth_largest.kth_largest_of_all(x, 0))


def test_nan_is_smallest():
  x = numbers()
  x[:, 20:] = np.nan
  kth = np.sort(x[:, :20], axis=1)[:, -4:-3]
  np.testing.assert_array_equal(kth_largest.kth_largest(x, 4), kth)


def test_the_cut_has_no_gradient():
  x = numbers()[:, 10:]
  slope = jax.grad(lambda x: jnp.sum(kth_largest.kth_largest(x, 3) * x))(x)
  np.testing.assert_array_equal(
    slope, jnp.broadcast_to(kth_largest.kth_largest(x, 3), x.shape)
  )


@pytest.mark.parametrize("rank", ["kth_largest", "kth_largest_of_all"])
@pytest.mark.parametrize(
  ("spec", "shards"),
  [(("data", "model"), 4), ((None, ("data", "model")), 8), (("data",), 1)],
)
def test_only_sums_of_counts_cross_devices(rank, spec, shards):
  rank = getattr(kth_largest, rank)
  auto = (jax.sharding.AxisType.Auto,) * 2
  mesh = jax.make_mesh((2, 4), ("data", "model"), axis_types=auto)
  here = NamedSharding(mesh, PartitionSpec(*spec))
  out = NamedSharding(
    mesh,
    PartitionSpec(
      None if shards == 8 or rank(numbers(), 1).size == 1 else "data"
    ),
  )
  x = numbers()
  jitted = jax.jit(
    functools.partial(rank, k=9, shards=shards),
    in_shardings=here,
    out_shardings=out,
  )
  compiled = jitted.lower(x).compile()
  np.testing.assert_array_equal(compiled(jax.device_put(x, here)), rank(x, 9))
  moved = re.findall(
    r" = (.*?) (all-|collective-|reduce-scatter)(\S*?)\(", compiled.as_text()
  )
  for shape, *kind in moved:
    assert "".join(kind) == "all-reduce", (shape, kind)
    (sizes,) = re.findall(r"u32\[([\d,]*)\]", shape)
    # Three counts of each token, or of all of them.
    assert math.prod(map(int, sizes.split(","))) in (3, 3 * 8, 3 * 16)
  assert bool(moved) == (shards > 1 or rank is kth_largest.kth_largest_of_all)
