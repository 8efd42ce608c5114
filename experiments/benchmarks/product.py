"""A plain product of an autoencoder's sizes: the limit of what can be reached.

An update is five of them: encoder and decoder forward, and the gradients of
both matrices and of the latents. N tokens, D site width, F latents.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxsae.sae.flops import update_flops_per_token


def turn(n: int, d: int, f: int) -> Callable[[], object]:
  """Latents times directions, the fastest of the five."""
  a, b = jnp.ones((n, f)), jnp.ones((f, d))
  multiply = jax.jit(jnp.matmul)
  return lambda: multiply(a, b).block_until_ready()


def flops(n: int, d: int, f: int) -> int:
  return 2 * n * d * f


IN_AN_UPDATE = update_flops_per_token(1, 1, 1) / flops(1, 1, 1)
