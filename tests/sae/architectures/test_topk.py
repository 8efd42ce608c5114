"""Exactly k latents on each token."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsae.errors import UserError
from jaxsae.sae import TopK
from tests.sae.architectures.samples import (
  TOKENS,
  WIDTH,
  D,
  draw_params,
  draw_rows,
  make_ask,
)

TOPK = TopK()


@pytest.mark.parametrize("k", [1, 3, WIDTH])
def test_each_token_has_its_k_largest(k):
  """Those of them that are positive."""
  params, rows = draw_params(TOPK), draw_rows()
  pre = np.asarray(TOPK.encode(params, rows.x))
  for token in range(3):
    one = rows.replace(mask=jnp.arange(TOKENS) == token)
    seen = TOPK.loss(params, one, make_ask(target=k))[1]
    largest = np.argsort(pre[token])[-k:]
    expected = np.zeros(WIDTH)
    expected[largest[pre[token, largest] > 0]] = 1
    np.testing.assert_array_equal(seen.fired, expected)


def test_latents_that_tie_stay_together_as_they_do_when_folded():
  params, rows = draw_params(TOPK), draw_rows()
  params = params.replace(
    w_enc=params.w_enc.at[:, 1].set(params.w_enc[:, 0]),
    b_enc=params.b_enc.at[:2].set(3.0),
  )
  seen = TOPK.loss(params, rows, make_ask(target=1))[1]
  np.testing.assert_array_equal(seen.fired[0], seen.fired[1])
  assert seen.fired[0] > 0
  sae = TOPK.fold(params, 1.0, 1.0, target=1)
  both = sae.encode(rows.x)[:, :2] > 0
  np.testing.assert_array_equal(both[:, 0], both[:, 1])


def test_folding_needs_k():
  params = draw_params(TOPK)
  with pytest.raises(UserError, match="target="):
    TOPK.fold(params, 1.0, 1.0)
  assert TOPK.fold(params, 1.0, 1.0, target=jnp.float32(3)).k == 3


def test_no_number_is_sorted():
  params = TOPK.init(jax.random.key(0), D, D, WIDTH)
  step = lambda p, inputs: TOPK.gradients(p, draw_rows(), inputs)
  program = str(jax.make_jaxpr(step)(params, make_ask(dead=3)))
  assert "while" in program or "scan" in program
  assert "sort" not in program and "top_k" not in program
