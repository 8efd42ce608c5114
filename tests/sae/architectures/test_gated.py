"""A gated autoencoder trains two paths and folds to a JumpReLU."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsae.sae import Gated
from tests.sae.architectures.samples import (
  assert_close,
  draw_params,
  draw_tokens,
  make_inputs,
)

GATED = Gated()


def forward(params, x):
  """Computes π, m and latents as published."""
  p = {name: np.asarray(value) for name, value in vars(params).items()}
  centred = np.asarray(x) - p["b_dec"]
  gate = centred @ p["w_enc"] + p["b_gate"]
  magnitude = centred @ (p["w_enc"] * np.exp(p["r_mag"])) + p["b_mag"]
  return gate, magnitude, (gate > 0) * np.maximum(magnitude, 0)


@pytest.fixture
def params():
  with jax.enable_x64(True):
    yield draw_params(GATED, dtype=jnp.float64)


def test_the_loss_is_the_published_one(params):
  rows = draw_tokens(dtype=jnp.float64)
  gate, _, latents = forward(params, rows.x)
  w_dec, b_dec = np.asarray(params.w_dec), np.asarray(params.b_dec)
  opened, mask = np.maximum(gate, 0), np.asarray(rows.mask)
  each = 0.7 * opened @ np.linalg.norm(w_dec, axis=1)
  for some in (latents, opened):
    each += np.sum((some @ w_dec + b_dec - np.asarray(rows.x)) ** 2, axis=1)
  loss, seen = GATED.loss(params, rows, make_inputs(0.7, dtype=jnp.float64))
  assert_close(loss, np.sum(mask * each) / mask.sum())
  np.testing.assert_array_equal(seen.fired, mask @ (latents > 0))


def test_folded_to_jumprelu_it_has_the_same_latents(params):
  """Holds also where the gate opens before magnitudes are positive."""
  x = draw_tokens(tokens=2000, dtype=jnp.float64).x
  gate, magnitude, latents = forward(params, x)
  assert np.any((gate > 0) & (magnitude < 0))
  assert np.any((gate < 0) & (magnitude > 0))
  sae = GATED.fold(params, 1.0, 1.0)
  np.testing.assert_array_equal(sae.encode(x) > 0, latents > 0)
  assert_close(sae.encode(x), latents)
  assert np.any(sae.threshold == 0) and np.any(sae.threshold > 0)


def test_the_gates_reconstruction_does_not_train_the_decoder(params):
  """With magnitudes at 0, only b_dec has a gradient, as a mean.

  What is left of W_dec's is the penalty's: λ f ‖W_dec‖, along directions, which
  `project` drops.
  """
  shut = params.replace(b_mag=params.b_mag - 1e3)
  shut = GATED.post_update(shut, ())
  rows, inputs = draw_tokens(dtype=jnp.float64), make_inputs(0.7)
  grads, seen = GATED.gradients(shut, rows, inputs)
  assert not seen.fired.any() and grads.w_enc.any() and grads.b_gate.any()
  assert grads.w_dec.any() and not grads.b_mag.any()
  turning = GATED.project(grads, shut).w_dec
  np.testing.assert_allclose(turning, 0, atol=1e-12)
