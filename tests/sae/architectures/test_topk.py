"""TopK keeps exactly k latents on each token."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsae.errors import UserError
from jaxsae.sae import TopK
from jaxsae.sae.model import largest
from tests.sae.architectures.samples import (
  TOKENS,
  WIDTH,
  D,
  draw_params,
  draw_tokens,
  make_inputs,
)

TOPK = TopK()


@pytest.mark.parametrize("k", [1, 3, WIDTH])
def test_the_k_largest_of_each_token_are_active(k):
  """Only the positive ones of them are active."""
  params, rows = draw_params(TOPK), draw_tokens()
  pre = np.asarray(TOPK.encode(params, rows.x))
  for token in range(3):
    one = rows.replace(mask=jnp.arange(TOKENS) == token)
    seen = TOPK.loss(params, one, make_inputs(target=k))[1]
    largest = np.argsort(pre[token])[-k:]
    expected = np.zeros(WIDTH)
    expected[largest[pre[token, largest] > 0]] = 1
    np.testing.assert_array_equal(seen.fired, expected)


def test_equal_latents_are_active_together_in_training_and_folded():
  params, rows = draw_params(TOPK), draw_tokens()
  params = params.replace(
    w_enc=params.w_enc.at[:, 1].set(params.w_enc[:, 0]),
    b_enc=params.b_enc.at[:2].set(3.0),
  )
  seen = TOPK.loss(params, rows, make_inputs(target=1))[1]
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


def test_topk_does_not_sort():
  params = TOPK.init(jax.random.key(0), D, D, WIDTH)
  step = lambda p, inputs: TOPK.gradients(p, draw_tokens(), inputs)
  program = str(jax.make_jaxpr(step)(params, make_inputs(dead=3)))
  assert "while" in program or "scan" in program
  assert "sort" not in program and "top_k" not in program


def test_folding_several_sites_keeps_which_latents_are_the_largest():
  scale = jnp.array([1.0, 50.0])
  architecture = TopK(transcodes=True)
  params, rows = draw_params(architecture), draw_tokens()
  folded = architecture.fold(params, 2.0, scale, target=3)
  latents = jnp.where(
    (pre := architecture.encode(params, rows.x)) > 0, pre, 0.0
  )
  expected = largest(latents, 3) @ params.w_dec + params.b_dec[None, :]
  columns = jnp.repeat(scale, D // 2)[None, :]
  np.testing.assert_allclose(
    folded(2.0 * rows.x) / columns, expected, atol=1e-5
  )
