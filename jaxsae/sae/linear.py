"""The two products of an autoencoder, with gradients laid out as the weights.

Automatic differentiation gets the gradient of a weight transposed and turns it
round, and on a CPU nothing in an update but the products themselves costs more.
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
  """(x - centre) W_enc + b_enc: [N, D_in] → pre-activations [N, F].

  Activations are data: there is no gradient to x.
  """
  return (x - centre[None, :]) @ w_enc + b_enc[None, :]


def _encode_forward(x, w_enc, b_enc, centre):
  return encode(x, w_enc, b_enc, centre), (x, w_enc, centre)


def _encode_backward(saved, grad):
  x, w_enc, centre = saved
  grad_w = jnp.einsum("nd,nf->df", x - centre[None, :], grad)
  grad_b = jnp.sum(grad, axis=0)
  # The sum over tokens first, so this is a product with one vector.
  grad_centre = -jnp.einsum("df,f->d", w_enc, grad_b)
  return None, grad_w, grad_b, grad_centre


encode.defvjp(_encode_forward, _encode_backward)


def decode(
  latents: jax.Array, w_dec: jax.Array, ends: tuple[int, ...]
) -> tuple[jax.Array, ...]:
  """What each prefix of the latents makes: [N, D] for each of `ends`.

  Prefixes build on one another, so all of them together cost one product of
  latents [N, F] and directions [F, D]; `ends` ascend to F.
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
  # A latent is in its own prefix and in all that are longer.
  grads = list(itertools.accumulate(reversed(grads)))[::-1]
  parts = list(zip(_parts(ends), grads, strict=True))
  to_latents = [jnp.einsum("nd,fd->nf", g, w_dec[some]) for some, g in parts]
  to_w = [jnp.einsum("nf,nd->fd", latents[:, some], g) for some, g in parts]
  return jnp.concatenate(to_latents, axis=1), jnp.concatenate(to_w)


_decode.defvjp(_decode_forward, _decode_backward)


def _parts(ends: tuple[int, ...]) -> list[slice]:
  return [slice(a, b) for a, b in itertools.pairwise((0, *ends))]
