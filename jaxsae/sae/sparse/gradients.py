"""The gradient of `loss`, a chunk of latents at a time.

Shapes: N tokens, D site width, F latents, C latents of a chunk, K pairs of a
tile.
"""

import jax
import jax.numpy as jnp

from jaxsae.errors import UserError
from jaxsae.sae.jumprelu import Kernel
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
    UserError: as `look`.
  """
  stack = jax.tree.map(lambda a: a[None], sae)
  arguments = x, mask, objective, coefficient, target
  pairs, reading = look(stack, jnp.int32(0), *arguments, budget)

  def all_of_it():
    return dense(sae, x, mask, dead, objective, coefficient, target)

  def of_pairs():
    grads, pull = _collect(stack, pairs, reading, dead, objective.kernel)
    return grads, pull, (reading.sums, reading.fired)

  return jax.lax.cond(pairs.overflow, all_of_it, of_pairs)


def look(
  stack: Sae,
  member: jax.Array,
  x: jax.Array,
  mask: jax.Array,
  objective: Objective,
  coefficient: jax.Array,
  target: jax.Array,
  budget: int,
) -> tuple[Pairs, Reading]:
  """The forward pass of one member of a stack; void if the pairs overflow.

  Raises:
    UserError: if gradients under the objective are not of pairs alone.
  """
  if not supports(objective):
    raise UserError(
      f"the objective {objective} has gradients at latents that are not active;"
      " train it with the dense path"
    )
  room = budget * x.shape[0]
  x, mask = _whole_words(x, mask)
  centred = x - stack.b_dec[member][None, :]
  bandwidth = objective.kernel.bandwidth
  pairs = find(stack, member, centred, mask != 0, bandwidth, room)
  arguments = x, mask, objective, coefficient, target
  return pairs, read(stack, member, *arguments, pairs)


def of_chunk(
  part: Sae,
  index: jax.Array,
  dead: jax.Array,
  pairs: Pairs,
  reading: Reading,
  kernel: Kernel,
) -> tuple[Sae, jax.Array]:
  """The gradient of some latents.

  Args:
    part: their weights, as `cut` reads them.
    index: int32 [], which chunk they are.
    dead: bool [C], those to wake.
    pairs: of all latents.
    reading: of all latents.
    kernel: of the thresholds.

  Returns:
    Their gradient; its b_dec is only what comes through these encoders. And
    the penalties' part in that of the thresholds, [C].
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
    threshold=pushed + pull + jnp.where(dead, WAKE, 0.0),
  )
  return grads, pull


def _whole_words(x, mask):
  """Tokens that do not count, up to a multiple of those in a word."""
  more = -len(mask) % WORD
  return jnp.pad(x, ((0, more), (0, 0))), jnp.pad(mask, (0, more))


def _collect(stack, pairs, reading, dead, kernel):
  """The gradient of all latents of a stack of one, and the penalties' part."""
  size = parts.chunk(stack.width)
  first = jnp.int32(0)

  def step(index, carry):
    grads, pull, b_dec = carry
    at = index * size
    part = parts.cut(stack, first, at, size)
    asleep = jax.lax.dynamic_slice_in_dim(dead, at, size)
    new, more = of_chunk(part, index, asleep, pairs, reading, kernel)
    pull = jax.lax.dynamic_update_slice_in_dim(pull, more, at, 0)
    return parts.put(grads, new, first, at), pull, b_dec + new.b_dec

  empty = jax.tree.map(jnp.zeros_like, stack)
  begin = empty, jnp.zeros(stack.width), jnp.sum(reading.error, axis=0)
  chunks = stack.width // size
  grads, pull, b_dec = jax.lax.fori_loop(0, chunks, step, begin)
  return jax.tree.map(lambda a: a[0], grads).replace(b_dec=b_dec), pull
