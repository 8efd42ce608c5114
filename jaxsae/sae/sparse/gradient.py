"""The gradient of `loss`, a chunk of latents at a time.

Shapes: N tokens, D site width, F latents, C latents of a chunk, K pairs of a
tile.
"""

import jax
import jax.numpy as jnp

from jaxsae.errors import UserError
from jaxsae.sae.loss import WAKE, Objective, Sums
from jaxsae.sae.loss import gradients as dense
from jaxsae.sae.model import Sae
from jaxsae.sae.sparse import part as parts
from jaxsae.sae.sparse.pairs import WORD, Pairs, find, tiles
from jaxsae.sae.sparse.reading import Reading, read, supports


def gradients(
  sae: Sae,
  x: jax.Array,
  mask: jax.Array,
  dead: jax.Array,
  objective: Objective,
  coefficient: jax.Array,
  target: jax.Array,
  budget: int,
) -> tuple[Sae, jax.Array, tuple[Sums, jax.Array]]:
  """What `jaxsae.sae.gradients` returns, from active and in-window pairs.

  Args:
    sae, x, mask, dead, objective, coefficient, target: as there.
    budget: pairs a token, in the mean, up to which this is tried; with more,
      the result is that of `jaxsae.sae.gradients` itself.

  Raises:
    UserError: if gradients under the objective are not of pairs alone.
  """
  if not supports(objective):
    raise UserError(
      f"the objective {objective} has gradients at latents that are not active;"
      " train it from all latents"
    )
  rest = objective, coefficient, target
  pairs, reading = look(sae, x, mask, *rest, budget * len(x))

  def from_all():
    return dense(sae, x, mask, dead, *rest)

  def from_pairs():
    grads, pull = _collect(sae, pairs, reading, dead, objective.kernel)
    return grads, pull, (reading.sums, reading.fired)

  return jax.lax.cond(pairs.overflow, from_all, from_pairs)


def budget(width: int) -> int:
  """Pairs a token up to which they are quicker than all latents, of F.

  On two CPU cores, at D = 256, both take as long where one latent in 32 to 40
  is active. At this, pairs are 1.5 times as quick; at slightly more, a search
  in vain costs a quarter of the dense update; at far more it soon stops.
  (experiments/benchmarks/sparse_step.py, 2026-11-21.)
  """
  return width // 64


def look(
  sae: Sae,
  x: jax.Array,
  mask: jax.Array,
  objective: Objective,
  coefficient: jax.Array,
  target: jax.Array,
  room: int,
) -> tuple[Pairs, Reading]:
  """The forward pass, with room for so many pairs; void if they overflow."""
  x, mask = _whole_words(x, mask)
  centred = x - sae.b_dec[None, :]
  pairs = find(sae, centred, mask != 0, objective.kernel.bandwidth, room)
  return pairs, read(sae, x, mask, objective, coefficient, target, pairs)


def _whole_words(x, mask):
  """Tokens that do not count, up to a multiple of those in a word."""
  more = -len(mask) % WORD
  return jnp.pad(x, ((0, more), (0, 0))), jnp.pad(mask, (0, more))


def _collect(sae, pairs, reading, dead, kernel):
  """The gradient of all latents, and the penalties' part in that of θ."""
  size = parts.chunk(sae.width)

  def step(index, carry):
    grads, pull, b_dec = carry
    at = index * size
    part = parts.cut(sae, at, size)
    new, now = _of_chunk(part, index, pairs, reading, kernel)
    pull = jax.lax.dynamic_update_slice_in_dim(pull, now, at, 0)
    return parts.put(grads, new, at), pull, b_dec + new.b_dec

  begin = (
    jax.tree.map(jnp.zeros_like, sae),
    jnp.zeros(sae.width),
    jnp.sum(reading.error, axis=0),
  )
  chunks = sae.width // size
  grads, pull, b_dec = jax.lax.fori_loop(0, chunks, step, begin)
  threshold = grads.threshold + jnp.where(dead, WAKE, 0.0)
  return grads.replace(b_dec=b_dec, threshold=threshold), pull


def _of_chunk(part, index, pairs, reading, kernel):
  """The gradient of the latents of a chunk, and the penalties' part in θ's.

  Of b_dec, only what comes through these encoders.
  """
  begin, end = pairs.starts[index], pairs.starts[index + 1]
  size, d = part.w_dec.shape
  at = index * size
  frequency = jax.lax.dynamic_slice_in_dim(reading.frequency, at, size)

  def add(sums, latent, token, pre, counts):
    latent = jnp.where(counts, latent - at, size - 1)  # stays sorted
    theta = part.threshold[latent]
    on = counts & (pre > theta)
    near = counts & (jnp.abs(pre - theta) < kernel.bandwidth / 2)
    error = reading.error[token]
    slope = jnp.sum(error * part.w_dec[latent], axis=-1)
    cost = reading.l0[token] + frequency[latent] * reading.mask[token]
    to_pre = jnp.where(on, slope, 0.0)
    new = (
      to_pre[:, None] * reading.x[token],
      to_pre,
      jnp.where(on, pre, 0.0)[:, None] * error,
      jnp.where(near, slope, 0.0),
      jnp.where(near, cost, 0.0),
    )
    put = lambda x, row: x.at[latent].add(row, indices_are_sorted=True)
    return jax.tree.map(put, sums, new)

  rows, each = jnp.zeros((size, d)), jnp.zeros(size)
  w_enc, b_enc, w_dec, slope, cost = tiles(
    pairs, begin, end, add, (rows, each, rows, each, each)
  )
  pull = -cost / kernel.bandwidth
  pushed = -part.threshold / kernel.bandwidth * slope
  grads = part.replace(
    w_enc=w_enc.T,
    b_enc=b_enc,
    w_dec=w_dec,
    b_dec=-part.w_enc @ b_enc,
    threshold=pushed + pull,
  )
  return grads, pull
