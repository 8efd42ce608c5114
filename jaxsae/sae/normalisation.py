"""Unit norms: the scale of activations, and directions of length one.

Shapes: F latents, D site width.
"""

import jax
import jax.numpy as jnp


def estimate_scale(x: jax.Array, mask: jax.Array) -> jax.Array:
  """C = √(mean ‖x‖²) over the tokens that count (Gemma Scope §3.1).

  Args:
    x: raw activations [..., D].
    mask: [...], 1 for tokens that count.
  """
  squared = jnp.sum(jnp.square(x.astype(jnp.float32)), axis=-1)
  return jnp.sqrt(jnp.sum(squared * mask) / jnp.sum(mask))


def random_directions(key: jax.Array, width: int, d: int) -> jax.Array:
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
