"""Next-token loss counts each document by itself."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsae import mesh as meshes
from jaxsae.lm import (
  GemmaConfig,
  Lm,
  init_params,
  loss_and_kl,
  next_token_loss,
)
from jaxsae.lm import loss as losses_of

SEGMENTS = jnp.array([[1, 1, 1, 2, 2, 0, 0, 0], [1, 1, 1, 1, 1, 1, 1, 1]])
#                      counted ✓  ✓  ·  ✓  ·  ·  ·        all but the first
COUNTED = [[1, 1, 0, 1, 0, 0, 0], [1] * 7]


@pytest.fixture
def logits():
  return 3 * jax.random.normal(jax.random.key(0), (2, 8, 11))


@pytest.fixture
def tokens():
  return jax.random.randint(jax.random.key(1), (2, 8), 0, 11)


def test_only_what_follows_in_its_own_document_counts(logits, tokens):
  losses, mask = next_token_loss(logits, tokens, SEGMENTS)
  np.testing.assert_array_equal(mask, np.array(COUNTED, bool))
  np.testing.assert_array_equal(losses == 0, ~mask)


def test_it_is_minus_the_log_of_the_softmax(logits, tokens):
  losses, mask = next_token_loss(logits, tokens, SEGMENTS)
  z = np.asarray(logits, np.float64)
  p = np.exp(z) / np.exp(z).sum(-1, keepdims=True)
  for row, t in np.argwhere(mask):
    expected = -np.log(p[row, t, tokens[row, t + 1]])
    assert losses[row, t] == pytest.approx(expected, rel=1e-5)


def test_the_loss_of_equal_logits_is_the_log_of_the_vocabulary(tokens):
  losses, mask = next_token_loss(jnp.zeros((2, 8, 11)), tokens, SEGMENTS)
  np.testing.assert_allclose(losses[mask], np.log(11), rtol=1e-6)


def test_large_logits_stay_finite(logits, tokens):
  losses, _ = next_token_loss(1e30 * logits, tokens, SEGMENTS)
  assert jnp.isfinite(losses).all()


def test_bfloat16_logits_are_summed_in_float32(logits, tokens):
  half = logits.astype(jnp.bfloat16)
  losses, _ = next_token_loss(half, tokens, SEGMENTS)
  exact, _ = next_token_loss(half.astype(jnp.float32), tokens, SEGMENTS)
  assert losses.dtype == jnp.float32
  np.testing.assert_array_equal(losses, exact)


def test_tokens_that_do_not_count_have_no_gradient(logits, tokens):
  def total(logits):
    return next_token_loss(logits, tokens, SEGMENTS)[0].sum()

  moved = jnp.abs(jax.grad(total)(logits)).max(-1) > 0
  np.testing.assert_array_equal(moved[:, :-1], np.array(COUNTED, bool))
  assert not moved[:, -1].any()


ROWS, TIME, VOCABULARY = 8, 14, 512


@pytest.fixture(scope="module")
def lm():
  config = GemmaConfig(
    vocab_size=VOCABULARY,
    num_layers=1,
    embed_dim=8,
    hidden_dim=8,
    num_heads=2,
    num_kv_heads=2,
    head_dim=4,
    query_pre_attn_scalar=4,
  )
  shapes = jax.eval_shape(lambda: init_params(config, jax.random.key(0)))
  rng = np.random.default_rng(0)
  draw = lambda x: jnp.asarray(rng.normal(0, 0.3, x.shape), x.dtype)
  return Lm(jax.tree.map(draw, shapes), config)


@pytest.fixture(scope="module")
def packed():
  """Two residual streams, and tokens and segments of some rows."""
  streams = jax.random.normal(jax.random.key(2), (2, ROWS, TIME, 8))
  tokens = jax.random.randint(jax.random.key(3), (ROWS, TIME), 0, VOCABULARY)
  segments = jnp.asarray(np.tile(np.repeat([1, 2, 3, 0], [5, 1, 4, 4]), ROWS))
  return *streams, tokens, segments.reshape(ROWS, TIME)


@pytest.mark.parametrize("chunk", [1, 24, 40, 10**6])
@pytest.mark.parametrize("data", [None, 2])
def test_the_loss_of_a_stream_is_that_of_its_logits(
  lm, packed, monkeypatch, chunk, data
):
  """Also where chunks do not divide the time, and on a mesh."""
  monkeypatch.setattr(losses_of, "_CHUNK", chunk)
  stream, clean, tokens, segments = packed
  expected, mask = next_token_loss(lm.unembed(stream), tokens, segments)
  if data is not None:
    mesh = meshes.make(meshes.MeshConfig(data=data, model=2))
    lm = lm.replace(mesh=mesh)
  found, kl, found_mask = jax.jit(loss_and_kl)(lm, *packed)
  np.testing.assert_array_equal(found_mask, mask)
  np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
  assert float(jnp.std(found[mask])) > 0.1
  divergence = kl_of(lm.unembed(clean), lm.unembed(stream))[:, :-1]
  np.testing.assert_allclose(kl, np.where(mask, divergence, 0), atol=1e-5)
  assert float(jnp.std(kl[mask])) > 0.1


def kl_of(clean, logits):
  """KL(p ‖ q) in NumPy and float64."""
  p, q = (
    np.exp(z) / np.exp(z).sum(-1, keepdims=True)
    for z in (np.asarray(clean, np.float64), np.asarray(logits, np.float64))
  )
  return (p * np.log(p / q)).sum(-1)


def test_the_logits_of_all_tokens_never_exist(lm, packed, monkeypatch):
  monkeypatch.setattr(losses_of, "_CHUNK", ROWS)  # one token of every row
  compiled = jax.jit(loss_and_kl).lower(lm, *packed).compile()
  logits = 4 * ROWS * TIME * VOCABULARY
  assert compiled.memory_analysis().temp_size_in_bytes < logits / 2
