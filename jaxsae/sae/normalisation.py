"""Normalisation: the scale of activations, and directions of unit norm.

Shapes: F latents, D site width.
"""

import jax
import jax.numpy as jnp


def per_column(scale: jax.Array, d: int) -> jax.Array:
  """Returns a scale for each column of activations, or for all of them alike.

  Args:
    scale: [S], or [S, L] where activations are those of L sites, joined.
    d: D, the width of the activations.

  Returns:
    [S, 1], or [S, D].
  """
  if scale.ndim == 1:
    return scale[:, None]
  return jnp.repeat(scale, d // scale.shape[-1], axis=-1)


def estimate_scale(x: jax.Array, mask: jax.Array) -> jax.Array:
  """Estimates the scale √(mean ‖x‖²) of activations (Gemma Scope §3.1).

  The mean is over the tokens that count.

  Args:
    x: raw activations [..., D].
    mask: [...], 1 for tokens that count.
  """
  squared = jnp.sum(jnp.square(x.astype(jnp.float32)), axis=-1)
  return jnp.sqrt(jnp.sum(squared * mask) / jnp.sum(mask))


def random_directions(key: jax.Array, width: int, d: int) -> jax.Array:
  """Draws He-uniform directions [F, D] of unit norm (Gemma Scope §3.2)."""
  he_uniform = jax.nn.initializers.he_uniform()
  return unit_rows(he_uniform(key, (width, d), jnp.float32))


def unit_rows(w_dec: jax.Array) -> jax.Array:
  """Normalises directions [..., F, D] to unit norm."""
  return w_dec / jnp.linalg.norm(w_dec, axis=-1, keepdims=True)


def drop_parallel(grad: jax.Array, w_dec: jax.Array) -> jax.Array:
  """Removes from a gradient the part that only changes norms: [..., F, D].

  `w_dec` holds unit directions, so the part along each of them is one dot
  product.
  """
  along = jnp.sum(grad * w_dec, axis=-1, keepdims=True)
  return grad - along * w_dec
