"""Gradients written by hand agree with those of the formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsae.sae.linear import decode, encode

N, D, F = 7, 5, 11


def draw(*shapes):
  keys = jax.random.split(jax.random.key(0), len(shapes))
  return [
    jax.random.normal(k, shape) for k, shape in zip(keys, shapes, strict=True)
  ]


@pytest.fixture
def encoder():
  """Draws x, W_enc, b_enc and b_dec."""
  return draw((N, D), (D, F), (F,), (D,))


@pytest.fixture
def decoder():
  """Draws latents and W_dec."""
  return draw((N, F), (F, D))


def plain_encode(x, w_enc, b_enc, b_dec):
  return (x - b_dec[None]) @ w_enc + b_enc[None]


def whole(latents, w_dec):
  return decode(latents, w_dec, (F,))[0]


def nested(latents, w_dec):
  return jnp.stack(decode(latents, w_dec, (2, 6, F)))


def plain_decode(latents, w_dec):
  return latents @ w_dec


def plain_nested(latents, w_dec):
  ends = (2, 6, F)
  return jnp.stack([latents[:, :end] @ w_dec[:end] for end in ends])


def gradients(function, arguments, argnums):
  """Returns gradients of a sum with different weights of all outputs."""

  def total(*arguments):
    out = function(*arguments)
    return jnp.sum(out * jnp.sin(jnp.arange(out.size)).reshape(out.shape))

  return jax.grad(total, argnums)(*arguments)


def test_encoding(encoder):
  found = gradients(encode, encoder, (1, 2, 3))
  wanted = gradients(plain_encode, encoder, (1, 2, 3))
  for ours, exact in zip(found, wanted, strict=True):
    np.testing.assert_allclose(ours, exact, rtol=1e-5, atol=1e-5)
  np.testing.assert_allclose(
    encode(*encoder), plain_encode(*encoder), rtol=1e-5, atol=1e-6
  )


@pytest.mark.parametrize(
  ("ours", "plain"), [(whole, plain_decode), (nested, plain_nested)]
)
def test_decoding(decoder, ours, plain):
  found, wanted = ours(*decoder), plain(*decoder)
  np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)
  found = gradients(ours, decoder, (0, 1))
  wanted = gradients(plain, decoder, (0, 1))
  for mine, exact in zip(found, wanted, strict=True):
    np.testing.assert_allclose(mine, exact, rtol=1e-5, atol=1e-5)


def test_prefixes_cost_one_product():
  """Forward and backward: three products of [N, F] and [F, D]."""

  def flops(function):
    of = jax.grad(lambda *xs: jnp.sum(jnp.square(function(*xs))), (0, 1))
    arrays = draw((64, 96), (96, 32))
    return jax.jit(of).lower(*arrays).compile().cost_analysis()["flops"]

  one = flops(lambda x, w: decode(x, w, (96,))[0])
  three = flops(lambda x, w: jnp.stack(decode(x, w, (16, 32, 96))))
  assert one >= 3 * 2 * 64 * 96 * 32
  assert three < 1.1 * one


def test_the_gradients_of_weights_need_no_transpose(encoder, decoder):
  def turns(function, arguments):
    of = lambda *arguments: gradients(function, arguments, 1)
    return str(jax.make_jaxpr(of)(*arguments)).count("transpose[")

  for plain in ((plain_encode, encoder), (plain_decode, decoder)):
    assert turns(*plain) > 0  # what differentiation makes of it
  assert turns(encode, encoder) == turns(whole, decoder) == 0
