"""The two products of an autoencoder, with gradients laid out as the weights.

Automatic differentiation computes the gradient of a weight transposed and then
transposes it back; on a CPU only the products themselves take longer than that.
Shapes: N tokens, D_in width of the site read, D of the site written, F latents.
"""

import functools
import itertools
import operator

import jax
import jax.numpy as jnp
import numpy as np

from jaxsae.sae.interleaving import OWN, Interleaving


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
  latents: jax.Array,
  w_dec: jax.Array,
  ends: tuple[int, ...],
  order: Interleaving = OWN,
) -> tuple[jax.Array, ...]:
  """Decodes each prefix of the latents: [N, D] for each of `ends`.

  Each prefix extends the one before, so all of them together take one product
  of latents and directions.

  Args:
    latents: [N, F].
    w_dec: directions, [F, D].
    ends: the number of latents in each prefix, ascending; the last is F.
    order: the order of latents in both arrays.
  """
  return _decode(latents, w_dec, ends, order)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _decode(latents, w_dec, ends, order):
  latents, w_dec = _split(latents, order, 1), _split(w_dec, order, 0)
  products = []
  # One product for each part, as devices add up the results of each.
  for some, mask in order.parts(ends):
    z = _masked(latents[:, :, some], mask)
    products.append(_flat(z, 1) @ _flat(w_dec[:, some], 0))
  return tuple(itertools.accumulate(products))


def _decode_forward(latents, w_dec, ends, order):
  return _decode(latents, w_dec, ends, order), (latents, w_dec)


def _decode_backward(ends, order, saved, grads):
  latents, w_dec = _split(saved[0], order, 1), _split(saved[1], order, 0)
  # A latent belongs to every prefix that ends after it.
  grads = list(itertools.accumulate(reversed(grads)))[::-1]
  to_latents, to_w = [], []
  for some in order.segments(ends):
    z = latents[:, :, some.latents]
    w = _flat(w_dec[:, some.latents], 0)
    of_z, of_w = [], []
    for i, mask in some.parts:
      made = _split(jnp.einsum("nd,fd->nf", grads[i], w), order, 1)
      of_z.append(_masked(made, mask))
      z_own = _flat(_masked(z, mask), 1)
      of_w.append(jnp.einsum("nf,nd->fd", z_own, grads[i]))
    to_latents.append(_sum(of_z))
    to_w.append(_split(_sum(of_w), order, 0))
  to_latents = jnp.concatenate(to_latents, axis=2)
  return _flat(to_latents, 1), _flat(jnp.concatenate(to_w, axis=1), 0)


_decode.defvjp(_decode_forward, _decode_backward)


def _split(x: jax.Array, order: Interleaving, axis: int) -> jax.Array:
  """Splits an axis F into shards and the latents of each."""
  return x.reshape(*x.shape[:axis], order.shards, -1, *x.shape[axis + 1 :])


def _flat(x: jax.Array, axis: int) -> jax.Array:
  """Joins the shards at an axis, which `_split` made."""
  return x.reshape(*x.shape[:axis], -1, *x.shape[axis + 2 :])


def _masked(x: jax.Array, mask: np.ndarray | None) -> jax.Array:
  return x if mask is None else x * mask[None].astype(x.dtype)


def _sum(terms: list[jax.Array]) -> jax.Array:
  return functools.reduce(operator.add, terms)
