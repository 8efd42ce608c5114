"""The TPU's fused kernel, interpreted, computes what `attend` does."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsae import mesh as meshes
from jaxsae.lm import splash
from jaxsae.lm.attention import Packing, attend

pytestmark = pytest.mark.slow

TIME, HEAD = 256, 128


@pytest.fixture(scope="module")
def inputs(pack):
  """inputs(rows, N, K, dtype): makes q, k, v and their packing."""

  def draw(rows, heads, kv_heads, dtype):
    rng = np.random.default_rng(0)
    shapes = [(rows, TIME, n, HEAD) for n in (heads, kv_heads, kv_heads)]
    q, k, v = (jnp.asarray(rng.standard_normal(s), dtype) for s in shapes)
    packing = Packing(*pack(rows, 140, 30, 70, padding=16))
    return q * jnp.asarray(HEAD**-0.5, dtype), k, v, packing

  return draw


@functools.partial(jax.jit, static_argnames=["window", "softcap", "mesh"])
def fused(q, k, v, packing, window, softcap, mesh=None):
  return splash.attend(
    q,
    k,
    v,
    packing.segments,
    window=window,
    softcap=softcap,
    mesh=mesh,
    interpret=True,
  )


@functools.partial(jax.jit, static_argnames=["window", "softcap"])
def plain(q, k, v, packing, window, softcap):
  return attend(q, k, v, packing, packing, window, softcap)


@pytest.mark.parametrize(
  "heads, kv_heads, window, softcap",
  [(4, 2, None, 1.0), (4, 2, 50, None), (2, 2, 150, 1.0), (4, 1, None, None)],
)
@pytest.mark.parametrize("dtype, atol", [("float32", 1e-5), ("bfloat16", 0.02)])
def test_the_kernel_is_attention(
  inputs, heads, kv_heads, window, softcap, dtype, atol
):
  x = inputs(1, heads, kv_heads, dtype)
  ours, expected = fused(*x, window, softcap), plain(*x, window, softcap)
  assert ours.dtype == dtype
  np.testing.assert_allclose(np.float32(ours), np.float32(expected), 0, atol)


@pytest.mark.parametrize(
  "rows, kv_heads",
  [(2, 2), (3, 2), (2, 1)],
  ids=["divided", "odd rows", "one key head"],
)
def test_every_device_has_its_rows_and_heads(inputs, rows, kv_heads):
  x = inputs(rows, 4, kv_heads, jnp.float32)
  mesh = meshes.make(meshes.MeshConfig(2, 2))
  np.testing.assert_allclose(
    fused(*x, 50, 1.0, mesh), plain(*x, 50, 1.0), 0, 1e-5
  )


@pytest.mark.parametrize(
  "time, head_dim, expected",
  [(256, 128, True), (1024, 256, True), (200, 128, False), (256, 64, False)],
)
def test_which_sizes_fit(time, head_dim, expected):
  assert splash.fits(time, head_dim) == expected
