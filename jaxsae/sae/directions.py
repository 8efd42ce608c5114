"""Directions: how they start, how they stay unit.

Shapes: F latents, D site width.
"""

import jax
import jax.numpy as jnp


def random(key: jax.Array, width: int, d: int) -> jax.Array:
  """He-uniform, then unit: [F, D] (Gemma Scope §3.2)."""
  he_uniform = jax.nn.initializers.he_uniform()
  return unit_rows(he_uniform(key, (width, d), jnp.float32))


def unit_rows(w_dec: jax.Array) -> jax.Array:
  """Directions [..., F, D] at unit norm."""
  return w_dec / jnp.linalg.norm(w_dec, axis=-1, keepdims=True)


def drop_parallel(grad: jax.Array, w_dec: jax.Array) -> jax.Array:
  """The gradient [..., F, D] without what only changes directions' norms.

  `w_dec` has unit rows, so the part along them is one dot product a row.
  """
  along = jnp.sum(grad * w_dec, axis=-1, keepdims=True)
  return grad - along * w_dec
