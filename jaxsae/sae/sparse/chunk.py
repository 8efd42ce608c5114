"""Chunks of an autoencoder's latents: how to read and to replace them.

Shapes: D site width, F latents, C latents of a chunk.
"""

import math

import jax

from jaxsae.sae.model import Sae

# The pre-activations of this many latents should fit in a CPU's cache.
MOST = 1024


def chunk_size(width: int) -> int:
  """Returns C for F: the largest power of two up to MOST that divides F."""
  return math.gcd(width, MOST)


def take_latents(sae: Sae, start: jax.Array, size: int) -> Sae:
  """Returns C latents from `start` on; b_dec, without latents, stays whole."""
  take = jax.lax.dynamic_slice_in_dim
  return sae.replace(
    w_enc=take(sae.w_enc, start, size, axis=1),
    b_enc=take(sae.b_enc, start, size),
    w_dec=take(sae.w_dec, start, size),
    threshold=take(sae.threshold, start, size),
  )


def put_latents(sae: Sae, part: Sae, start: jax.Array) -> Sae:
  """Replaces the latents from `start` on by those of `part`; keeps b_dec."""
  give = jax.lax.dynamic_update_slice_in_dim
  return sae.replace(
    w_enc=give(sae.w_enc, part.w_enc, start, axis=1),
    b_enc=give(sae.b_enc, part.b_enc, start, axis=0),
    w_dec=give(sae.w_dec, part.w_dec, start, axis=0),
    threshold=give(sae.threshold, part.threshold, start, axis=0),
  )
