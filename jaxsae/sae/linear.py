"""The two products of an autoencoder, with gradients laid out as the weights.

Automatic differentiation gets the gradient of a weight transposed and turns it
round, and on a CPU nothing in an update but the products themselves costs more.
Shapes: N tokens, D site width, F latents.
"""

import jax
import jax.numpy as jnp


@jax.custom_vjp
def encode(
  x: jax.Array, w_enc: jax.Array, b_enc: jax.Array, b_dec: jax.Array
) -> jax.Array:
  """(x - b_dec) W_enc + b_enc: activations [N, D] → pre-activations [N, F].

  Activations are data: there is no gradient to x.
  """
  return (x - b_dec[None, :]) @ w_enc + b_enc[None, :]


def _encode_forward(x, w_enc, b_enc, b_dec):
  return encode(x, w_enc, b_enc, b_dec), (x, w_enc, b_dec)


def _encode_backward(saved, grad):
  x, w_enc, b_dec = saved
  grad_w = jnp.einsum("nd,nf->df", x - b_dec[None, :], grad)
  grad_b = jnp.sum(grad, axis=0)
  # The sum over tokens first, so this is a product with one vector.
  grad_b_dec = -jnp.einsum("df,f->d", w_enc, grad_b)
  return None, grad_w, grad_b, grad_b_dec


encode.defvjp(_encode_forward, _encode_backward)


@jax.custom_vjp
def decode(latents: jax.Array, w_dec: jax.Array, b_dec: jax.Array) -> jax.Array:
  """Latents [N, F] → reconstruction [N, D]."""
  return latents @ w_dec + b_dec[None, :]


def _decode_forward(latents, w_dec, b_dec):
  return decode(latents, w_dec, b_dec), (latents, w_dec)


def _decode_backward(saved, grad):
  latents, w_dec = saved
  grad_latents = jnp.einsum("nd,fd->nf", grad, w_dec)
  grad_w = jnp.einsum("nf,nd->fd", latents, grad)
  return grad_latents, grad_w, jnp.sum(grad, axis=0)


decode.defvjp(_decode_forward, _decode_backward)
