"""Properties of the model that need no other library."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsae.errors import UserError
from jaxsae.lm import Lm, gemma2_tiny

pytestmark = pytest.mark.slow

logits = jax.jit(Lm.logits)  # an eager pass compiles each operation by itself


def close(ours, theirs, atol=1e-5):
  np.testing.assert_allclose(ours, theirs, 1e-5, atol)


# Who sees whom.


@pytest.fixture(scope="module", params=["grouped", "single_key"])
def lm(request, tiny):
  return tiny(request.param)


@pytest.fixture(scope="module")
def influence(lm, tokens):
  """influence(depth)[t, s]: how much the token at s changes x at t, ≥ 0."""
  row = tokens[:1]
  table = lm.params["embedder"]["input_embedding"]

  def residual(table, depth):
    params = lm.params | {"embedder": {"input_embedding": table}}
    x = lm.replace(params=params).apply(row, num_blocks=depth)
    return x[0] @ jnp.sin(jnp.arange(32.0))  # [T]

  def measure(depth):
    gradient = jax.jit(jax.jacobian(residual), static_argnums=1)
    by_token = gradient(table, depth)  # [T, V, D]
    return np.abs(by_token[:, row[0]]).max(-1)

  return measure


def test_no_token_sees_a_later_one(lm, influence):
  seen = influence(lm.config.num_layers)
  now, other = np.indices(seen.shape)
  assert (seen[other > now] == 0).all()
  assert (seen[other <= now] > 0).all()


def test_a_local_layer_sees_no_further_than_its_window(lm, influence):
  seen = influence(1)  # the first layer is local
  now, other = np.indices(seen.shape)
  inside = (other <= now) & (now - other < lm.config.window)
  assert (seen[inside] > 0).all()
  assert (seen[~inside] == 0).all()


@pytest.mark.parametrize("name, first", [("grouped", 1), ("normed", 5)])
def test_which_layers_are_local(name, first, tiny):
  """Every `first + 1`-th layer, starting from `first`, is global."""
  config = tiny(name).config
  layers = range(config.num_layers)
  assert [not config.is_local(i) for i in layers] == [
    i % (first + 1) == first for i in layers
  ]


# Packing.


def test_packed_documents_do_not_affect_each_other(
  lm, tokens, everything, pack
):
  segments, positions = pack(2, 7, 7, padding=2)
  together = everything(lm, tokens, segments, positions)
  for part in (slice(0, 7), slice(7, 14)):
    alone = everything(lm, tokens[:, part])
    for what, x in alone.items():
      close(together[what][:, part], x)


def test_other_documents_and_padding_change_no_bit(
  lm, tokens, everything, pack
):
  segments, positions = pack(2, 7, 7, padding=2)
  mine = np.asarray(segments[0]) == 2
  other = jnp.where(mine, tokens, 63 - tokens)
  one, two = (everything(lm, t, segments, positions) for t in (tokens, other))
  for what, x in one.items():
    np.testing.assert_array_equal(x[:, mine], two[what][:, mine])
    assert (x[:, ~mine] != two[what][:, ~mine]).any()


@pytest.mark.parametrize("name", ["grouped", "normed"])
def test_only_differences_of_positions_matter(name, tiny, tokens):
  lm, ones = tiny(name), jnp.ones_like(tokens)
  positions = jnp.tile(jnp.arange(16), (2, 1))
  default = logits(lm, tokens)
  np.testing.assert_array_equal(default, logits(lm, tokens, ones, positions))
  moved = logits(lm, tokens, ones, positions + 10)
  close(default, moved, atol=1e-4)


def test_rows_that_fit_the_fused_kernel_run_without_one(tiny, draw_tokens):
  """128 tokens and heads of 128 take another path with the same result."""
  lm = tiny("grouped", num_layers=2, num_heads=2, num_kv_heads=1, head_dim=128)
  tokens = draw_tokens(1, 128)
  shorter = logits(lm, tokens[:, :127])
  close(logits(lm, tokens)[:, :127], shorter)


# Numbers.


@pytest.mark.parametrize("name", ["grouped", "full"])
def test_logits_stay_below_the_cap(name, tiny, tokens):
  lm = tiny(name)
  largest = jnp.abs(logits(lm, tokens)).max()
  assert 0.5 < largest / lm.config.final_softcap < 1


def test_logits_are_float32_and_activations_are_not(
  lm, tokens, everything, in_dtype
):
  half = jax.eval_shape(everything, in_dtype(jnp.bfloat16, lm), tokens)
  types = {what: x.dtype for what, x in half.items()}
  assert types.pop("logits") == jnp.float32
  assert set(types.values()) == {jnp.dtype(jnp.bfloat16)}


@pytest.mark.parametrize(
  "change", [{"num_kv_heads": 3}, {"head_dim": 7}], ids=str
)
def test_impossible_sizes_are_named(change):
  with pytest.raises(UserError, match=next(iter(change))):
    dataclasses.replace(gemma2_tiny(), **change)
