"""Which tokens and latents an update depends on, and how they are found.

A pair is a token that counts and a latent that is active on it or has it inside
its kernel; both together are z - θ > -ε/2.

No pre-activation is sorted and no sum runs over all of them. A chunk's are
compared and packed into words of 32 tokens as they come from the product; sums
of set bits for each latent say how many pairs there are, and each pair, told
its number, looks up its latent, its word and its bit.

Accelerators cannot end a loop early as cheaply; there `jax.lax.approx_max_k`
over each token's z - θ, with a bound as fixed as its k, would take the place of
this file.

Shapes: N tokens, D site width, F latents, C latents of a chunk, W = N/32
words, K pairs of a tile, P pairs that there is room for.
"""

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
from flax import struct

from jaxsae.sae.model import Sae
from jaxsae.sae.sparse import chunk as chunks

Carry = TypeVar("Carry")

TILE = 256  # pairs that are worked on at once
WORD = 32  # tokens in a word; N is a multiple


class Pairs(struct.PyTreeNode):
  """Pairs in the order of their latents; what follows the last means nothing.

  Attributes:
    latent: int32 [P + K].
    token: int32 [P + K].
    pre: pre-activations z, [P + K].
    starts: int32 [F/C + 1], where the pairs of each chunk begin; the last is
      their number. After an overflow the chunks left out have the number so
      far.
  """

  latent: jax.Array
  token: jax.Array
  pre: jax.Array
  starts: jax.Array

  @property
  def count(self) -> jax.Array:
    """How many there are, or any number above P if there was no room."""
    return self.starts[-1]

  @property
  def overflow(self) -> jax.Array:
    """Whether there are more than there is room for."""
    return self.count > self.latent.shape[0] - TILE


def find(
  sae: Sae,
  x: jax.Array,
  counts: jax.Array,
  bandwidth: float,
  room: int,
) -> Pairs:
  """The pairs of an autoencoder; stops when there are too many.

  Args:
    sae: in training form.
    x: activations minus b_dec, [N, D], N a multiple of 32.
    counts: bool [N], tokens that count.
    bandwidth: ε.
    room: P.
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
    # Tokens are left out by the word: one by one costs a fifth of the search.
    words = _pack(near) & _pack(counts[:, None])
    pairs, now = _append(pairs, found, words, pre, index * size)
    found += now
    # All later starts too, for a search that stops leaves them.
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
  """Folds `function(carry, latent, token, pre, counts)` over pairs, K at once.

  The last tile goes on past `end`; `counts`, bool [K], is false there, and
  latents and tokens are of other pairs, or 0.
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
  """Bool [N, C] → uint32 [C, W]; bit b of word w is token b·W + w."""
  near = near.reshape(WORD, -1, near.shape[1]).astype(jnp.uint32)
  bits = jnp.arange(WORD, dtype=jnp.uint32)[:, None, None]
  # A sum over the first axis, so that it runs over many latents at once.
  return jnp.sum(near << bits, axis=0, dtype=jnp.uint32).T


def _append(pairs, found, words, pre, start):
  """The pairs and those of one chunk, and how many those are."""
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

  # With room left there is room for one tile more than the room.
  wanted = jnp.minimum(ends[-1], room - found)
  pairs = jax.lax.fori_loop(0, -(-wanted // TILE), step, pairs)
  return pairs, ends[-1]


def _locate(words, ends, number):
  """Latent and token of pairs of a chunk, by their numbers [K]."""
  latent = _first_above(ends[None, :], number)
  number -= jnp.where(latent > 0, ends[latent - 1], 0)
  row = words[latent]
  # As a product: the sums of up to N ones are exact, and CPUs are quick at it.
  sums = _ones(row).astype(jnp.float32) @ _triangle(row.shape[1])
  word = _first_above(sums, number)
  ones, taken = _pick(_ones(row), word), _pick(row, word)
  number -= _pick(sums, word).astype(jnp.int32) - ones
  up_to = jnp.uint32(2**WORD - 1) >> jnp.arange(WORD, dtype=jnp.uint32)[::-1]
  bit = _first_above(_ones(taken[:, None] & up_to[None, :]), number)
  return latent, bit * row.shape[1] + word


def _first_above(sums, number):
  """Where running sums [K, …] first exceed numbers [K]; the last if never."""
  index = jnp.sum(sums <= number[:, None], axis=-1)
  return jnp.minimum(index, sums.shape[1] - 1)


def _pick(x, index):
  """x[k, index[k]] for each k."""
  return jnp.take_along_axis(x, index[:, None], axis=1)[:, 0]


def _ones(words):
  """How many bits are set in each word."""
  return jax.lax.population_count(words).astype(jnp.int32)


def _triangle(size):
  """What running sums are a product with."""
  return jnp.triu(jnp.ones((size, size)))
