"""The scalar that brings a site's activations to unit mean squared norm."""

import jax
import jax.numpy as jnp


def estimate(x: jax.Array, mask: jax.Array) -> jax.Array:
  """C = √(mean ‖x‖²) over the tokens that count (Gemma Scope §3.1).

  Args:
    x: raw activations [..., D].
    mask: [...], 1 for tokens that count.
  """
  squared = jnp.sum(jnp.square(x.astype(jnp.float32)), axis=-1)
  return jnp.sqrt(jnp.sum(squared * mask) / jnp.sum(mask))
