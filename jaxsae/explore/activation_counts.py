"""How often and how strongly each latent fires, counted in one pass.

A histogram from 0 to a latent's maximum needs that maximum before the first
token is counted, and a second pass would run the language model twice. So each
latent is counted in a range of its own, from 0 to a power of two above the
largest activation so far. When the range doubles, each new edge coincides with
an old one, so the counts stay exact. At the end they are interpolated at the
edges of the histogram.

Shapes: B rows, T time, N tokens, F latents, E edges.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

# The maximum lies in the upper half of the range, so at least 32 edges count.
_EDGES = 64
_CHUNK = 64  # tokens; their counts fit in 8 bits, which are fastest to sum


class ActivationCounts(struct.PyTreeNode):
  """Counts of the activations of F latents so far, by size.

  Attributes:
    maximum: [F], the largest activation.
    above: int32 [F, E], the number of activations above e / E of the latent's
      range; column 0 counts all tokens on which it fires.
  """

  maximum: jax.Array
  above: jax.Array


def no_activations(latents: int) -> ActivationCounts:
  """Makes zero counts, as they are before the first token."""
  return ActivationCounts(
    maximum=jnp.zeros(latents, jnp.float32),
    above=jnp.zeros((latents, _EDGES), jnp.int32),
  )


def add_activations(
  counts: ActivationCounts, latents: jax.Array
) -> ActivationCounts:
  """Returns the counts with activations [B, T, F], each at least 0, added."""
  latents = latents.reshape(-1, latents.shape[-1])
  maximum = jnp.maximum(counts.maximum, jnp.max(latents, axis=0))
  before, now = _exponent(counts.maximum), _exponent(maximum)
  limit = jnp.ldexp(jnp.ones_like(maximum), now)
  above = _double_range(counts.above, jnp.maximum(now - before, 0))
  return ActivationCounts(maximum, above + _count_above(latents, limit))


def histogram(counts: ActivationCounts, bins: int) -> np.ndarray:
  """Histograms int [F, bins], linear from 0 to each latent's maximum.

  Counts are interpolated between the edges of the pass, of which 32 to 64 lie
  below the maximum: a token moves by at most one step between edges. The
  histogram of a latent sums to the number of tokens on which it fired.
  """
  maximum = np.asarray(counts.maximum)[:, None]
  limit = np.ldexp(1.0, np.frexp(maximum)[1])
  known = limit * np.arange(_EDGES + 1) / _EDGES
  above = np.pad(np.asarray(counts.above), ((0, 0), (0, 1)))
  wanted = maximum * np.arange(bins) / bins
  rows = zip(wanted, known, above, strict=True)
  interpolated = np.stack([np.interp(*row) for row in rows])
  return -np.diff(np.rint(interpolated).astype(np.int64), append=0)


def _exponent(maximum):
  """The exponent e with 2^e > maximum ≥ 2^(e-1); the range ends at 2^e."""
  return jnp.frexp(maximum)[1]


def _double_range(above, times):
  """Returns counts [F, E] for a range that doubled `times` [F] times."""
  # After six doublings only the edge at 0 is left.
  times = jnp.minimum(times, _EDGES.bit_length() - 1)
  edge = jnp.arange(_EDGES)[None] << times[:, None]
  counts = jnp.take_along_axis(above, jnp.minimum(edge, _EDGES - 1), axis=1)
  return jnp.where(edge < _EDGES, counts, 0)


def _count_above(latents, limit):
  """Counts the latents [N, F] above each edge: int32 [F, E]."""
  # The number of edges that an activation is above; exact, as the factor is a
  # power of two.
  steps = jnp.ceil(latents * (_EDGES / limit)[None]).astype(jnp.int8)
  extra = -len(steps) % _CHUNK
  pieces = jnp.pad(steps, ((0, extra), (0, 0)))
  pieces = pieces.reshape(-1, _CHUNK, steps.shape[-1])
  edges = jnp.arange(_EDGES, dtype=jnp.int8)[:, None, None]

  def count(total, piece):
    higher = jnp.sum(piece[None] > edges, axis=1, dtype=jnp.int8)
    return total + higher.astype(jnp.int32), None

  total = jnp.zeros((_EDGES, steps.shape[-1]), jnp.int32)
  return jax.lax.scan(count, total, pieces)[0].T
