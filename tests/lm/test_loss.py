"""Next-token loss counts each document by itself."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsae.lm import next_token_loss

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
