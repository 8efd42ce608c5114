"""How often and how strongly each latent fires, counted in one pass.

A histogram from 0 to a latent's maximum needs that maximum before the first
token is counted, and a second pass would run the language model twice. So each
latent counts within a reach of its own, a power of two above the largest
activation so far. When the reach doubles, each new edge coincides with an old
one, and nothing is lost. At the end the counts are read off at other edges.

Letters in shapes: B rows, T time, F latents, E edges.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

# The maximum lies in the upper half of the reach: at least 32 count.
_EDGES = 64
_AT_ONCE = 64  # tokens; a count of so many fits in 8 bits, the fastest to sum


@struct.dataclass
class Strength:
  """The activations of F latents so far.

  Attributes:
    maximum: [F], the largest activation.
    above: int32 [F, E], how many lie above e / E of the latent's reach; the
      first column counts every time that it fires.
  """

  maximum: jax.Array
  above: jax.Array


def no_strength(latents: int) -> Strength:
  """Before the first token."""
  return Strength(
    maximum=jnp.zeros(latents, jnp.float32),
    above=jnp.zeros((latents, _EDGES), jnp.int32),
  )


def add_strength(strength: Strength, latents: jax.Array) -> Strength:
  """Counts activations [B, T, F], each at least 0."""
  latents = latents.reshape(-1, latents.shape[-1])
  maximum = jnp.maximum(strength.maximum, jnp.max(latents, axis=0))
  before, now = _exponent(strength.maximum), _exponent(maximum)
  reach = jnp.ldexp(jnp.ones_like(maximum), now)
  above = _double(strength.above, jnp.maximum(now - before, 0))
  return Strength(maximum, above + _count_above(latents, reach))


def histogram(strength: Strength, bins: int) -> np.ndarray:
  """Counts int [F, bins] in equal steps from 0 to each latent's maximum.

  Between the edges of the pass the counts are interpolated, which moves a
  token by at most one of its 32 to 64 steps. Each row sums to how often the
  latent fired.
  """
  maximum = np.asarray(strength.maximum)[:, None]
  reach = np.ldexp(1.0, np.frexp(maximum)[1])
  known = reach * np.arange(_EDGES + 1) / _EDGES
  above = np.pad(np.asarray(strength.above), ((0, 0), (0, 1)))
  wanted = maximum * np.arange(bins) / bins
  rows = zip(wanted, known, above, strict=True)
  counts = np.stack([np.interp(*row) for row in rows])
  return -np.diff(np.rint(counts).astype(np.int64), append=0)


def _exponent(maximum):
  """e of the reach 2^e > maximum ≥ 2^(e-1)."""
  return jnp.frexp(maximum)[1]


def _double(above, times):
  """Counts [F, E] at the edges of a reach that doubled [F] times."""
  # After six doublings only the edge at 0 is left.
  times = jnp.minimum(times, _EDGES.bit_length() - 1)
  edge = jnp.arange(_EDGES)[None] << times[:, None]
  counts = jnp.take_along_axis(above, jnp.minimum(edge, _EDGES - 1), axis=1)
  return jnp.where(edge < _EDGES, counts, 0)


def _count_above(latents, reach):
  """How many of latents [N, F] lie above each edge: int32 [F, E]."""
  # Exact, as the factor is a power of two: an activation is above so many
  # edges.
  steps = jnp.ceil(latents * (_EDGES / reach)[None]).astype(jnp.int8)
  extra = -len(steps) % _AT_ONCE
  pieces = jnp.pad(steps, ((0, extra), (0, 0)))
  pieces = pieces.reshape(-1, _AT_ONCE, steps.shape[-1])
  edges = jnp.arange(_EDGES, dtype=jnp.int8)[:, None, None]

  def count(total, piece):
    higher = jnp.sum(piece[None] > edges, axis=1, dtype=jnp.int8)
    return total + higher.astype(jnp.int32), None

  total = jnp.zeros((_EDGES, steps.shape[-1]), jnp.int32)
  return jax.lax.scan(count, total, pieces)[0].T
