"""Shards of interleaved latents have equal shares of every prefix."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsae.sae import interleaving
from jaxsae.sae.interleaving import OWN, Interleaving
from jaxsae.sae.linear import decode

GEMMA_SCOPE_2 = (1 / 32, 3 / 32, 7 / 32, 15 / 32)


def ends_of(width, prefixes=GEMMA_SCOPE_2):
  return (*(round(share * width) for share in prefixes), width)


def latents_of(order, width):
  """The latent at every position."""
  rows = np.arange(width).reshape(-1, order.shards, order.block)
  return np.swapaxes(rows, 0, 1).ravel()


@pytest.mark.parametrize("width", [16_384, 65_536, 262_144])
@pytest.mark.parametrize("shards", [1, 2, 8, 16, 64])
def test_published_prefixes_are_shared_equally(width, shards):
  ends = ends_of(width)
  order = interleaving.choose(ends, shards, resting=width // 64)
  held = latents_of(order, width).reshape(shards, -1)
  for end in ends:
    assert set(np.sum(held < end, axis=1)) == {end // shards}
  parts = list(order.segments(ends))
  assert [part.parts for part in parts] == [((i, None),) for i in range(5)]
  assert [part.latents.stop * shards for part in parts] == list(ends)


@pytest.mark.parametrize("prefixes", [(0.1, 0.3), (0.01, 0.011, 0.6)])
@pytest.mark.parametrize("shards", [2, 3, 16, 48])
def test_other_prefixes_cost_few_latents_more(prefixes, shards):
  width = 3 * 2**12
  ends = ends_of(width, prefixes)
  order = interleaving.choose(ends, shards, resting=width // 48)
  computed = sum(
    (one.latents.stop - one.latents.start) * shards * len(one.parts)
    for one in order.segments(ends)
  )
  assert computed <= width + 8 * shards * 2 * len(prefixes)


def test_latents_that_are_not_split_keep_their_order():
  for width in (7, 2048):
    alone = interleaving.choose(ends_of(width, (0.3,)), 1, resting=width)
    np.testing.assert_array_equal(latents_of(alone, width), np.arange(width))
    plain = interleaving.choose((64 * width,), 8, resting=width)
    np.testing.assert_array_equal(
      latents_of(plain, 64 * width), np.arange(64 * width)
    )


@pytest.mark.parametrize("ends", [(48,), (8, 16, 48), (1, 13, 14, 48)])
@pytest.mark.parametrize("shards, block", [(1, 1), (2, 4), (4, 1), (8, 2)])
def test_decoding_and_its_gradients_do_not_depend_on_the_order(
  ends, shards, block
):
  order, n, width, d = Interleaving(shards, block), 5, 48, 7
  rng = np.random.default_rng(0)
  weigh = rng.normal(size=(len(ends), n, d))

  def total(x, w, order):
    return jnp.sum(jnp.stack(decode(x, w, ends, order)) * weigh)

  def plain(x, w):
    made = jnp.stack([x[:, :end] @ w[:end] for end in ends])
    return jnp.sum(made * weigh)

  with jax.enable_x64(True):
    x, w = rng.normal(size=(n, width)), rng.normal(size=(width, d))
    at = latents_of(order, width)
    found, of = jax.value_and_grad(total, (0, 1))(x[:, at], w[at], order)
    wanted, (of_x, of_w) = jax.value_and_grad(plain, (0, 1))(x, w)
  np.testing.assert_allclose(found, wanted, rtol=1e-12)
  np.testing.assert_allclose(of[0], of_x[:, at], rtol=1e-12, atol=1e-12)
  np.testing.assert_allclose(of[1], of_w[at], rtol=1e-12, atol=1e-12)


def test_prefixes_in_their_own_order_need_no_masks():
  parts = [part.parts for part in OWN.segments((1, 13, 14, 48))]
  assert parts == [((i, None),) for i in range(4)]
