"""The gradient of JumpReLU's loss, a chunk of latents at a time.

Shapes: N tokens, D site width, F latents, C latents of a chunk, K pairs of a
tile.
"""

import jax
import jax.numpy as jnp

from jaxsae.errors import UserError
from jaxsae.sae.architectures import (
  JumpRelu,
  UpdateInputs,
  UpdateStats,
  UpdateTokens,
)
from jaxsae.sae.architectures.jumprelu import WAKE
from jaxsae.sae.model import Sae
from jaxsae.sae.sparse.chunk import chunk_size, put_latents, take_latents
from jaxsae.sae.sparse.forward import ForwardPass, run_forward, supports
from jaxsae.sae.sparse.pairs import WORD, Pairs, find, tiles


def gradients(
  architecture: JumpRelu,
  params: Sae,
  tokens: UpdateTokens,
  inputs: UpdateInputs,
  budget: int,
) -> tuple[Sae, UpdateStats]:
  """Computes `architecture.gradients` from active and in-window pairs.

  Args:
    architecture: an architecture that `supports` accepts.
    params: one autoencoder in training.
    tokens: the tokens of the update.
    inputs: its settings in this update.
    budget: the most pairs per token, on average; if there are more, the result
      comes from `architecture.gradients` itself.

  Raises:
    UserError: the architecture's gradients don't depend on pairs alone.
  """
  if not supports(architecture):
    raise UserError(
      f"{architecture} has gradients at latents that are not active; train it"
      " from all latents"
    )
  room = budget * len(tokens.mask)
  pairs, forward = forward_pass(architecture, params, tokens, inputs, room)

  def from_all():
    return architecture.gradients(params, tokens, inputs)

  def from_pairs():
    grads = _collect(params, pairs, forward, inputs.dead, architecture.kernel)
    return grads, forward.seen

  return jax.lax.cond(pairs.overflow, from_all, from_pairs)


def budget(width: int) -> int:
  """Returns the most pairs per token, at width F, for which pairs are faster.

  On two CPU cores, at D = 256, pairs take as long as all latents if one latent
  in 32 to 40 is active. At this budget pairs are 1.5 times as fast. With
  slightly more pairs, the search is wasted and takes a quarter of the dense
  update's time; with far more, it soon stops.
  (python -m experiments.benchmarks.sparse_step, 2026-11-21.)
  """
  return width // 64


def forward_pass(
  architecture: JumpRelu,
  params: Sae,
  tokens: UpdateTokens,
  inputs: UpdateInputs,
  room: int,
) -> tuple[Pairs, ForwardPass]:
  """Runs the forward pass with room for `room` pairs.

  If there are more, `Pairs.overflow` is true and the result is meaningless.
  """
  x, mask = _whole_words(tokens.x, tokens.mask)
  centred = x - params.b_dec[None, :]
  width = architecture.kernel.bandwidth
  pairs = find(params, centred, mask != 0, width, room)
  return pairs, run_forward(architecture, params, x, mask, inputs, pairs)


def _whole_words(x, mask):
  """Pads with tokens that don't count, up to a whole number of words."""
  more = -len(mask) % WORD
  return jnp.pad(x, ((0, more), (0, 0))), jnp.pad(mask, (0, more))


def _collect(sae, pairs, forward, dead, kernel):
  """Collects the gradient of all latents, chunk by chunk."""
  size = chunk_size(sae.width)

  def step(index, carry):
    grads, b_dec = carry
    at = index * size
    part = take_latents(sae, at, size)
    new = _of_chunk(part, index, pairs, forward, kernel)
    return put_latents(grads, new, at), b_dec + new.b_dec

  begin = jax.tree.map(jnp.zeros_like, sae), jnp.sum(forward.error, axis=0)
  chunks = sae.width // size
  grads, b_dec = jax.lax.fori_loop(0, chunks, step, begin)
  threshold = grads.threshold + jnp.where(dead, WAKE, 0.0)
  return grads.replace(b_dec=b_dec, threshold=threshold)


def _of_chunk(part, index, pairs, forward, kernel):
  """Computes the gradient of the latents of a chunk.

  For b_dec it is only the part that comes through these encoders.
  """
  begin, end = pairs.starts[index], pairs.starts[index + 1]
  size, d = part.w_dec.shape
  at = index * size
  frequency = jax.lax.dynamic_slice_in_dim(forward.frequency, at, size)

  def add(sums, latent, token, pre, counts):
    latent = jnp.where(counts, latent - at, size - 1)  # stays sorted
    theta = part.threshold[latent]
    on = counts & (pre > theta)
    near = counts & (jnp.abs(pre - theta) < kernel.bandwidth / 2)
    error = forward.error[token]
    slope = jnp.sum(error * part.w_dec[latent], axis=-1)
    cost = forward.l0[token] + frequency[latent] * forward.mask[token]
    to_pre = jnp.where(on, slope, 0.0)
    new = (
      to_pre[:, None] * forward.x[token],
      to_pre,
      jnp.where(on, pre, 0.0)[:, None] * error,
      jnp.where(near, slope, 0.0),
      jnp.where(near, cost, 0.0),
    )
    put = lambda x, row: x.at[latent].add(row, indices_are_sorted=True)
    return jax.tree.map(put, sums, new)

  directions, each = jnp.zeros((size, d)), jnp.zeros(size)
  w_enc, b_enc, w_dec, slope, cost = tiles(
    pairs, begin, end, add, (directions, each, directions, each, each)
  )
  pull = -cost / kernel.bandwidth
  pushed = -part.threshold / kernel.bandwidth * slope
  return part.replace(
    w_enc=w_enc.T,
    b_enc=b_enc,
    w_dec=w_dec,
    b_dec=-part.w_enc @ b_enc,
    threshold=pushed + pull,
  )
