"""The gradients written by hand are those of the formulas."""

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
  """x, W_enc, b_enc, b_dec."""
  return draw((N, D), (D, F), (F,), (D,))


@pytest.fixture
def decoder():
  """Latents, W_dec, b_dec."""
  return draw((N, F), (F, D), (D,))


def plain_encode(x, w_enc, b_enc, b_dec):
  return (x - b_dec[None]) @ w_enc + b_enc[None]


def plain_decode(latents, w_dec, b_dec):
  return latents @ w_dec + b_dec[None]


def gradients(function, arguments, argnums):
  """Of a sum in which every output weighs differently."""

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


def test_decoding(decoder):
  found = gradients(decode, decoder, (0, 1, 2))
  wanted = gradients(plain_decode, decoder, (0, 1, 2))
  for ours, exact in zip(found, wanted, strict=True):
    np.testing.assert_allclose(ours, exact, rtol=1e-5, atol=1e-5)


def test_the_gradients_of_weights_are_not_turned_round(encoder, decoder):
  def turns(function, arguments):
    of = lambda *arguments: gradients(function, arguments, 1)
    return str(jax.make_jaxpr(of)(*arguments)).count("transpose[")

  for plain in ((plain_encode, encoder), (plain_decode, decoder)):
    assert turns(*plain) > 0  # what differentiation makes of it
  assert turns(encode, encoder) == turns(decode, decoder) == 0
