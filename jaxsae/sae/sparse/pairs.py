"""Finds the pairs of tokens and latents that an update depends on.

A pair is a token that counts and a latent that is active on it or has it inside
its kernel; both cases together are z - θ > -ε/2.

Pre-activations are not sorted, and no sum runs over all of them. Those of a
chunk are compared and packed into words of 32 tokens as they come from the
product. Sums of set bits for each latent tell how many pairs there are, and
each pair finds its latent, its word and its bit from its number.

Accelerators cannot end a loop early as cheaply; there `jax.lax.approx_max_k`
over each token's z - θ, with a fixed k, would take the place of this file.

Shapes: N tokens, D site width, F latents, C latents of a chunk, W = N/32
words, K pairs of a tile, P the number of pairs that there is room for.
"""

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
from flax import struct

from jaxsae.sae.model import Sae
from jaxsae.sae.sparse import chunk as chunks

Carry = TypeVar("Carry")

TILE = 256  # pairs that are processed at once
WORD = 32  # tokens in a word; N is a multiple of it


class Pairs(struct.PyTreeNode):
  """Pairs in the order of their latents; entries after the last are undefined.

  Attributes:
    latent: int32 [P + K], the latent of each pair.
    token: int32 [P + K], the token of each pair.
    pre: the pre-activation z of each pair, [P + K].
    starts: int32 [F/C + 1], where the pairs of each chunk begin; the last entry
      is the number of pairs. After an overflow, chunks that were not searched
      have the number found so far.
  """

  latent: jax.Array
  token: jax.Array
  pre: jax.Array
  starts: jax.Array

  @property
  def count(self) -> jax.Array:
    """The number of pairs, or some number above P if there was no room."""
    return self.starts[-1]

  @property
  def overflow(self) -> jax.Array:
    """True if there are more pairs than there is room for."""
    return self.count > self.latent.shape[0] - TILE


def find(
  sae: Sae,
  x: jax.Array,
  counts: jax.Array,
  bandwidth: float,
  room: int,
) -> Pairs:
  """Finds the pairs of an autoencoder; stops if there are too many.

  Args:
    sae: one autoencoder in training.
    x: activations minus b_dec, [N, D]; N is a multiple of 32.
    counts: bool [N], the tokens that count.
    bandwidth: ε.
    room: P, the number of pairs that there is room for.
  """
  width = sae.width
  size = chunks.chunk_size(width)

  def more(carry):
    index, _, found = carry
    return (index < width // size) & (found <= room)

  def step(carry):
    index, pairs, found = carry
    part = chunks.take_latents(sae, index * size, size)
    pre = x @ part.w_enc + part.b_enc[None, :]
    near = pre - part.threshold[None, :] > -bandwidth / 2
    # Masking whole words: masking each token takes a fifth of the search.
    words = _pack(near) & _pack(counts[:, None])
    pairs, now = _append(pairs, found, words, pre, index * size)
    found += now
    # All later starts too, because a search that stops doesn't reach them.
    later = jnp.arange(width // size + 1) > index
    starts = jnp.where(later, found, pairs.starts)
    return index + 1, pairs.replace(starts=starts), found

  begin = jnp.int32(0), _empty(room, width // size), jnp.int32(0)
  return jax.lax.while_loop(more, step, begin)[1]


def tiles(
  pairs: Pairs,
  begin: jax.Array | int,
  end: jax.Array,
  function: Callable[..., Carry],
  carry: Carry,
) -> Carry:
  """Folds `function(carry, latent, token, pre, counts)` over tiles of pairs.

  The last tile extends past `end`; there `counts`, bool [K], is false, and
  latents and tokens belong to other pairs, or are 0.

  Args:
    pairs: the pairs.
    begin: the number of the first pair.
    end: the number after that of the last pair.
    function: called with the carry and with arrays [K]; returns the new carry.
    carry: the carry at the start.
  """

  def step(index, carry):
    at = begin + index * TILE
    take = lambda x: jax.lax.dynamic_slice_in_dim(x, at, TILE)
    counts = at + jnp.arange(TILE) < end
    fields = take(pairs.latent), take(pairs.token), take(pairs.pre)
    return function(carry, *fields, counts)

  return jax.lax.fori_loop(0, -(-(end - begin) // TILE), step, carry)


def _empty(room, chunks):
  return Pairs(
    latent=jnp.zeros(room + TILE, jnp.int32),
    token=jnp.zeros(room + TILE, jnp.int32),
    pre=jnp.zeros(room + TILE),
    starts=jnp.zeros(chunks + 1, jnp.int32),
  )


def _pack(near):
  """Packs bool [N, C] as uint32 [C, W]; bit b of word w is token b·W + w."""
  near = near.reshape(WORD, -1, near.shape[1]).astype(jnp.uint32)
  bits = jnp.arange(WORD, dtype=jnp.uint32)[:, None, None]
  # Summing over the first axis lets the sum run over many latents at once.
  return jnp.sum(near << bits, axis=0, dtype=jnp.uint32).T


def _append(pairs, found, words, pre, start):
  """Appends the pairs of a chunk; returns all pairs, and the chunk's count."""
  ends = jnp.cumsum(jnp.sum(_ones(words), axis=-1))
  room = pairs.latent.shape[0] - TILE

  def step(index, pairs):
    number = index * TILE + jnp.arange(TILE)
    latent, token = _locate(words, ends, number)
    at = found + index * TILE
    put = lambda x, new: jax.lax.dynamic_update_slice_in_dim(x, new, at, 0)
    return pairs.replace(
      latent=put(pairs.latent, start + latent),
      token=put(pairs.token, token),
      pre=put(pairs.pre, pre[token, latent]),
    )

  # Arrays hold one tile more than the room, so the last tile always fits.
  wanted = jnp.minimum(ends[-1], room - found)
  pairs = jax.lax.fori_loop(0, -(-wanted // TILE), step, pairs)
  return pairs, ends[-1]


def _locate(words, ends, number):
  """Finds the latents and tokens of pairs of a chunk by their numbers [K]."""
  latent = _first_above(ends[None, :], number)
  number -= jnp.where(latent > 0, ends[latent - 1], 0)
  row = words[latent]
  # A product, which is fast on CPUs; sums of up to N ones are exact.
  sums = _ones(row).astype(jnp.float32) @ _triangle(row.shape[1])
  word = _first_above(sums, number)
  ones, taken = _pick(_ones(row), word), _pick(row, word)
  number -= _pick(sums, word).astype(jnp.int32) - ones
  up_to = jnp.uint32(2**WORD - 1) >> jnp.arange(WORD, dtype=jnp.uint32)[::-1]
  bit = _first_above(_ones(taken[:, None] & up_to[None, :]), number)
  return latent, bit * row.shape[1] + word


def _first_above(sums, number):
  """Finds where running sums [K, …] first exceed numbers [K], or the end."""
  index = jnp.sum(sums <= number[:, None], axis=-1)
  return jnp.minimum(index, sums.shape[1] - 1)


def _pick(x, index):
  """Returns x[k, index[k]] for each k."""
  return jnp.take_along_axis(x, index[:, None], axis=1)[:, 0]


def _ones(words):
  """Counts the set bits of each word."""
  return jax.lax.population_count(words).astype(jnp.int32)


def _triangle(size):
  """Makes the matrix whose product with a row gives its running sums."""
  return jnp.triu(jnp.ones((size, size)))
