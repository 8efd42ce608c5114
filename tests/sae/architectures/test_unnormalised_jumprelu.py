"""JumpReLU trains with directions of any norm."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxsae.sae import JumpRelu, UnnormalisedJumpRelu
from tests.sae.architectures.samples import (
  WIDTH,
  D,
  assert_close,
  draw_params,
  draw_tokens,
  make_inputs,
)

FREE, ROWS = UnnormalisedJumpRelu(), draw_tokens()


def test_it_starts_like_jumprelu_with_short_directions():
  free, unit = (
    a.init(jax.random.key(0), D, D, WIDTH) for a in (FREE, JumpRelu())
  )
  assert_close(free.w_dec, 0.1 * unit.w_dec)
  assert_close(free.w_enc, 0.1 * unit.w_enc)
  assert_close(free.threshold, unit.threshold)


def test_the_loss_is_that_of_jumprelu():
  params = draw_params(FREE)
  ours, theirs = (
    a.loss(params, ROWS, make_inputs())[0] for a in (FREE, JumpRelu())
  )
  np.testing.assert_allclose(ours, theirs)


def test_norms_are_learned():
  params = draw_params(FREE)
  grads, seen = FREE.gradients(params, ROWS, make_inputs())
  assert_close(FREE.project(grads, params), grads)
  moved = params.replace(threshold=params.threshold - 0.1)
  settled = FREE.post_update(moved, seen.post_update_stats)
  assert_close(settled.w_dec, params.w_dec)
  assert jnp.min(moved.threshold) < 0 <= jnp.min(settled.threshold)
  assert not np.allclose(JumpRelu().project(grads, params).w_dec, grads.w_dec)
