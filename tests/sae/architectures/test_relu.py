"""ReLU with L1 agrees with arithmetic by hand."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxsae.sae import Relu
from tests.sae.architectures.samples import (
  WIDTH,
  D,
  draw_params,
  draw_tokens,
  make_inputs,
)

RELU = Relu()


def test_the_loss_is_the_published_one():
  params, rows = draw_params(RELU), draw_tokens()
  w = {name: np.asarray(value) for name, value in vars(params).items()}
  x, mask = np.asarray(rows.x), np.asarray(rows.mask)
  latents = np.maximum((x - w["b_dec"]) @ w["w_enc"] + w["b_enc"], 0)
  error = latents @ w["w_dec"] + w["b_dec"] - x
  norms = np.linalg.norm(w["w_dec"], axis=1)
  each = np.sum(error**2, axis=1) + 0.7 * np.sum(latents * norms, axis=1)
  loss, seen = RELU.loss(params, rows, make_inputs(0.7))
  np.testing.assert_allclose(loss, np.sum(mask * each) / mask.sum(), rtol=1e-5)
  np.testing.assert_array_equal(seen.fired, mask @ (latents > 0))


def test_the_penalty_ignores_how_encoder_and_decoder_share_the_norm():
  params, rows = draw_params(RELU), draw_tokens()
  stretch = jnp.linspace(0.25, 4, WIDTH)
  other = params.replace(
    w_enc=params.w_enc * stretch[None, :],
    b_enc=params.b_enc * stretch,
    w_dec=params.w_dec / stretch[:, None],
  )
  losses = [RELU.loss(p, rows, make_inputs(0.7))[0] for p in (params, other)]
  np.testing.assert_allclose(*losses, rtol=1e-5)


def test_directions_may_start_at_another_norm():
  params = Relu(norm=0.5).init(jax.random.key(0), D, D, WIDTH)
  norms = jnp.linalg.norm(params.w_dec, axis=1)
  np.testing.assert_allclose(norms, 0.5, rtol=1e-5)
  np.testing.assert_array_equal(params.w_enc, params.w_dec.T)
  assert not params.threshold.any()
