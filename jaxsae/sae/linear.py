"""The two products of an autoencoder, with gradients laid out as the weights.

Automatic differentiation computes the gradient of a weight transposed and then
transposes it back; on a CPU only the products themselves take longer than that.
Shapes: N tokens, D_in width of the site read, D of the site written, F latents.
"""

import functools
import itertools

import jax
import jax.numpy as jnp


@jax.custom_vjp
def encode(
  x: jax.Array, w_enc: jax.Array, b_enc: jax.Array, centre: jax.Array
) -> jax.Array:
  """Computes pre-activations (x - centre) W_enc + b_enc: [N, D_in] → [N, F].

  x has no gradient, because activations are data.
  """
  return (x - centre[None, :]) @ w_enc + b_enc[None, :]


def _encode_forward(x, w_enc, b_enc, centre):
  return encode(x, w_enc, b_enc, centre), (x, w_enc, centre)


def _encode_backward(saved, grad):
  x, w_enc, centre = saved
  grad_w = jnp.einsum("nd,nf->df", x - centre[None, :], grad)
  grad_b = jnp.sum(grad, axis=0)
  # Summing over tokens first makes this a product with a single vector.
  grad_centre = -jnp.einsum("df,f->d", w_enc, grad_b)
  return None, grad_w, grad_b, grad_centre


encode.defvjp(_encode_forward, _encode_backward)


def decode(
  latents: jax.Array, w_dec: jax.Array, ends: tuple[int, ...]
) -> tuple[jax.Array, ...]:
  """Decodes each prefix of the latents: [N, D] for each of `ends`.

  Each prefix extends the one before, so all of them together take one product
  of latents and directions.

  Args:
    latents: [N, F].
    w_dec: directions, [F, D].
    ends: the number of latents in each prefix, ascending; the last is F.
  """
  return _decode(latents, w_dec, ends)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _decode(latents, w_dec, ends):
  products = [latents[:, some] @ w_dec[some] for some in _parts(ends)]
  return tuple(itertools.accumulate(products))


def _decode_forward(latents, w_dec, ends):
  return _decode(latents, w_dec, ends), (latents, w_dec)


def _decode_backward(ends, saved, grads):
  latents, w_dec = saved
  # A latent belongs to every prefix that ends after it.
  grads = list(itertools.accumulate(reversed(grads)))[::-1]
  parts = list(zip(_parts(ends), grads, strict=True))
  to_latents = [jnp.einsum("nd,fd->nf", g, w_dec[some]) for some, g in parts]
  to_w = [jnp.einsum("nf,nd->fd", latents[:, some], g) for some, g in parts]
  return jnp.concatenate(to_latents, axis=1), jnp.concatenate(to_w)


_decode.defvjp(_decode_forward, _decode_backward)


def _parts(ends: tuple[int, ...]) -> list[slice]:
  return [slice(a, b) for a, b in itertools.pairwise((0, *ends))]
