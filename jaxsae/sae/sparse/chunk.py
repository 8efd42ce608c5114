"""Some latents of an autoencoder: read from it, and written to another.

Shapes: D site width, F latents, C of them.
"""

import math

import jax

from jaxsae.sae.model import Sae

# The pre-activations of so many latents should lie in a CPU's cache.
MOST = 1024


def chunk_size(width: int) -> int:
  """C for F: the largest power of two that divides F, up to MOST."""
  return math.gcd(width, MOST)


def take_latents(sae: Sae, start: jax.Array, size: int) -> Sae:
  """C latents from `start` on; b_dec has no latents and is whole."""
  take = jax.lax.dynamic_slice_in_dim
  return sae.replace(
    w_enc=take(sae.w_enc, start, size, axis=1),
    b_enc=take(sae.b_enc, start, size),
    w_dec=take(sae.w_dec, start, size),
    threshold=take(sae.threshold, start, size),
  )


def put_latents(sae: Sae, part: Sae, start: jax.Array) -> Sae:
  """The autoencoder with the latents from `start` on replaced; never b_dec."""
  give = jax.lax.dynamic_update_slice_in_dim
  return sae.replace(
    w_enc=give(sae.w_enc, part.w_enc, start, axis=1),
    b_enc=give(sae.b_enc, part.b_enc, start, axis=0),
    w_dec=give(sae.w_dec, part.w_dec, start, axis=0),
    threshold=give(sae.threshold, part.threshold, start, axis=0),
  )
