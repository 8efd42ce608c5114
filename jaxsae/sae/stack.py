"""Autoencoders of one shape as one array: how they start, how they stay unit.

Shapes: S autoencoders, D site width, F latents.
"""

import jax
import jax.numpy as jnp

from jaxsae.sae.model import Sae


def init(
  key: jax.Array, size: int, d: int, width: int, threshold: float
) -> Sae:
  """A stack of S autoencoders as Gemma Scope starts them (§3.2).

  Directions are He-uniform, then unit; the encoder is their transpose; biases
  are zero. Member i depends on the key and on i alone, not on S.
  """
  keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(size))
  he_uniform = jax.nn.initializers.he_uniform()
  w_dec = jax.vmap(lambda k: he_uniform(k, (width, d), jnp.float32))(keys)
  w_dec = unit_rows(w_dec)
  return Sae(
    w_enc=w_dec.mT,
    b_enc=jnp.zeros((size, width)),
    w_dec=w_dec,
    b_dec=jnp.zeros((size, d)),
    threshold=jnp.full((size, width), threshold, jnp.float32),
  )


def member(stack: Sae, index: int) -> Sae:
  """One autoencoder of a stack."""
  return jax.tree.map(lambda x: x[index], stack)


def unit_rows(w_dec: jax.Array) -> jax.Array:
  """Directions [..., F, D] at unit norm."""
  return w_dec / jnp.linalg.norm(w_dec, axis=-1, keepdims=True)


def drop_parallel(grad: jax.Array, w_dec: jax.Array) -> jax.Array:
  """The gradient [..., F, D] without what only changes directions' norms.

  `w_dec` has unit rows, so the part along them is one dot product a row.
  """
  along = jnp.sum(grad * w_dec, axis=-1, keepdims=True)
  return grad - along * w_dec
