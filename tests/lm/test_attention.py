"""Attention agrees with a plain sum over all pairs of tokens."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsae.lm.attention import Packing, apply_rope, attend, attention_mask

attend_jit = jax.jit(attend, static_argnums=(5, 6))
HEADS, KEY_HEADS, HEAD = 4, 2, 8


def draw(rows, queries, keys):
  """Draws q, k and v."""
  rng = np.random.default_rng(0)
  shapes = [(queries, HEADS), (keys, KEY_HEADS), (keys, KEY_HEADS)]
  return [
    rng.standard_normal((rows, *shape, HEAD), np.float32) for shape in shapes
  ]


def by_pairs(q, k, v, queries, keys, window, softcap):
  """Computes attention by its definition, in float64."""
  q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
  k, v = (np.repeat(x, HEADS // KEY_HEADS, axis=2) for x in (k, v))
  now, then = queries.positions[:, :, None], keys.positions[:, None, :]
  sees = queries.segments[:, :, None] == keys.segments[:, None, :]
  sees = sees & (then <= now) & (now - then < (window or np.inf))
  logits = np.einsum("btnh,bsnh->bnts", q, k)
  logits = softcap * np.tanh(logits / softcap) if softcap else logits
  weights = np.exp(logits) * np.asarray(sees)[:, None]
  weights /= weights.sum(-1, keepdims=True)
  return np.einsum("bnts,bsnh->btnh", weights, v)


# 300 is no multiple of the smallest block; 1100 needs larger ones.
@pytest.mark.parametrize(
  "time, window, softcap",
  [
    (1, 5, 2.0),
    (17, 5, 2.0),
    (128, 1, None),
    (300, None, 2.0),
    (300, 5, None),
    (300, 150, 2.0),
    (300, 1000, None),
    (1100, 150, None),
    (1100, None, None),
  ],
)
def test_attention_is_the_sum_over_all_pairs(time, window, softcap, pack):
  packing = Packing(
    *pack(1, time // 2, time // 5, time - time // 2 - time // 5)
  )
  q, k, v = draw(1, time, time)
  ours = attend_jit(q, k, v, packing, packing, window, softcap)
  expected = by_pairs(q, k, v, packing, packing, window, softcap)
  np.testing.assert_allclose(ours, expected, 0, 1e-5)


@pytest.mark.parametrize("window", [None, 5])
def test_queries_may_be_fewer_than_keys(window, pack):
  """Keys are a cache with 11 tokens, 3 of them new, and 4 free columns."""
  keys = Packing(*pack(2, 11, padding=4))
  queries = keys[8:11]
  q, k, v = draw(2, 3, 15)
  ours = attend_jit(q, k, v, queries, keys, window, None)
  expected = by_pairs(q, k, v, queries, keys, window, None)
  np.testing.assert_allclose(ours, expected, 0, 1e-5)


@pytest.mark.parametrize("window", [None, 150])
def test_other_documents_change_no_bit(window, pack):
  segments, positions = pack(1, 140, 150, padding=10)
  packing, mine = Packing(segments, positions), (segments == 2)[0]
  x = draw(1, 300, 300)
  noise = [np.where(mine[:, None, None], a, a + 100) for a in x]
  plain, noisy = (
    attend_jit(*y, packing, packing, window, 2.0) for y in (x, noise)
  )
  np.testing.assert_array_equal(plain[:, mine], noisy[:, mine])
  assert (plain[:, ~mine] != noisy[:, ~mine]).all()


def test_no_more_than_a_block_of_queries_is_held_at_once(pack):
  """An array [B, N, T, T] would have a million numbers per head."""
  packing = Packing(*pack(1, 1024))
  shapes = jax.make_jaxpr(
    lambda *x: attend(*x, packing, packing, window=64, softcap=2.0)
  )(*draw(1, 1024, 1024))
  sizes = [x.aval.size for eqn in shapes.eqns for x in eqn.outvars]
  assert max(sizes) == HEADS * 128 * (128 + 63)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16], ids=str)
def test_the_result_has_the_type_of_the_values(dtype, pack):
  packing = Packing(*pack(1, 17))
  x = [jnp.asarray(a, dtype) for a in draw(1, 17, 17)]
  assert attend_jit(*x, packing, packing, 5, 2.0).dtype == dtype


# Who sees whom.


def test_a_token_sees_itself_and_its_window(pack):
  packing = Packing(*pack(1, 6))
  mask = attention_mask(packing, packing, window=3)[0]
  now, then = np.indices((6, 6))
  np.testing.assert_array_equal(mask, (then <= now) & (then > now - 3))


def test_no_token_sees_another_document(pack):
  segments, positions = pack(1, 3, 2, padding=2)
  packing = Packing(segments, positions)
  mask = np.asarray(attention_mask(packing, packing)[0])
  same = np.asarray(segments) == np.asarray(segments).T
  np.testing.assert_array_equal(mask, same & np.tri(7, dtype=bool))


# Rotary positions.


@pytest.mark.parametrize("base, scale", [(1e4, 1.0), (1e6, 8.0)])
def test_rope_rotates_complex_numbers(base, scale):
  """x_j + i·x_{j+H/2} is rotated by position / scale · base^(-2j/H)."""
  x, positions = draw(2, 5, 5)[0], np.array([[0, 1, 2, 3, 500]] * 2)
  ours = np.asarray(apply_rope(x, positions, base, scale))
  half = HEAD // 2
  angle = positions[..., None] / scale * base ** (-np.arange(half) / half)
  z = x[..., :half] + 1j * x[..., half:]
  turned = z * np.exp(1j * angle)[:, :, None]
  expected = np.concatenate([turned.real, turned.imag], axis=-1)
  np.testing.assert_allclose(ours, expected, 0, 1e-4)
  np.testing.assert_array_equal(ours[:, 0], x[:, 0])
