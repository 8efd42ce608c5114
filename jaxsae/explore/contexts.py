"""The contexts in which latents are active, found in one pass.

Of each latent two sets are kept: the strongest contexts, and a sample of all,
from which the report takes contexts of lower activations. Both are larger than
what is shown, because near-duplicates are left out at the end.

Shapes: B rows, T time, F latents, K contexts of a latent, W tokens of a
context.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxsae.explore.duplicates import near_duplicates
from jaxsae.explore.report import Contexts
from jaxsae.token_batch import TokenBatch

_PER_DOCUMENT = 2  # contexts; a second one only where documents are few
_CANDIDATES = 3  # contexts that are kept for each one that is shown
_MAX_PAIRS = 2**23  # of contexts, in memory at a time
_EMPTY: dict[str, Any] = {
  "ranks": 0,
  "tokens": -1,
  "activations": 0,
  "position": 0,
  "document": -1,
}


class KeptContexts(struct.PyTreeNode):
  """The K contexts of highest rank of each of F latents so far, highest first.

  Attributes:
    ranks: [F, K], what they are chosen by, or 0 without a context.
    tokens: int32 [F, K, W], the token ids, or -1 where there is no token.
    activations: [F, K, W], the activation on each token.
    position: int32 [F, K], the position of the peak in its segment.
    document: int32 [F, K], the document of the peak, or -1 without a context.
  """

  ranks: jax.Array
  tokens: jax.Array
  activations: jax.Array
  position: jax.Array
  document: jax.Array

  @property
  def values(self) -> jax.Array:
    """The activation at each peak, [F, K]."""
    return self.activations[..., _tokens_before_peak(self.tokens.shape[-1])]


def no_contexts(latents: int, shown: int, window: int) -> KeptContexts:
  """Makes empty contexts, of which `shown` are to be shown in the end."""
  shape = (latents, _CANDIDATES * shown)
  return KeptContexts(
    ranks=jnp.zeros(shape, jnp.float32),
    tokens=jnp.full((*shape, window), -1, jnp.int32),
    activations=jnp.zeros((*shape, window), jnp.float32),
    position=jnp.zeros(shape, jnp.int32),
    document=jnp.full(shape, -1, jnp.int32),
  )


def kept_bytes(shown: int, window: int) -> int:
  """Returns how many bytes the contexts of one latent take during a survey."""
  each_token = 8  # its id and its activation
  return each_token * window * _CANDIDATES * shown


def add_contexts(
  kept: KeptContexts, ranks: jax.Array, latents: jax.Array, batch: TokenBatch
) -> KeptContexts:
  """Returns the highest of the contexts so far and those of a new batch.

  A row gives at most one context per latent, around its token of the highest
  rank, and a document at most two. Among equal ranks the earlier row is kept,
  however the rows are batched.

  Args:
    kept: the contexts so far.
    ranks: the rank of each token, [B, T, F], 0 where it may not be a peak.
    latents: activations, [B, T, F].
    batch: the text, [B, T], with its documents.
  """
  assert batch.documents is not None
  peaks, times = _peaks(ranks)  # [F, B]
  count, new = kept.ranks.shape[1], len(batch.tokens)
  documents = batch.documents[jnp.arange(new)[None], times]
  every = _few_per_document(
    jnp.concatenate([kept.ranks, peaks], axis=1),
    jnp.concatenate([kept.document, documents], axis=1),
  )
  # top_k puts the first of equal values first.
  highest, chosen = jax.lax.top_k(every, count)
  rows = jnp.maximum(chosen - count, 0)
  windows = _windows(latents, batch, rows, times, kept.tokens.shape[-1])
  old = jnp.minimum(chosen, count - 1)

  def pick(before, new, empty):
    widen = lambda x: x.reshape(*x.shape, *(1,) * (before.ndim - 2))
    before = jnp.take_along_axis(before, widen(old), axis=1)
    picked = jnp.where(widen(chosen < count), before, new)
    return jnp.where(widen(highest > 0), picked, empty)

  new = KeptContexts(ranks=highest, **windows)
  return jax.tree.map(pick, kept, new, KeptContexts(**_EMPTY))


def sample_ranks(latents: jax.Array, batch: TokenBatch) -> jax.Array:
  """Returns ranks [B, T, F] whose highest are a random sample of what fires.

  They depend on nothing but the token and its place in its document, so the
  sample is the same however the rows are batched.
  """
  assert batch.documents is not None
  bits = jnp.zeros(batch.tokens.shape, jnp.uint32)
  for part in (batch.documents, batch.positions, batch.tokens):
    bits = _scramble(bits ^ part.astype(jnp.uint32))
  ranks = (bits >> 8).astype(jnp.float32) + 1  # exact, and above 0
  return jnp.where(latents > 0, ranks[..., None], 0)


def to_report(
  top: KeptContexts, sample: KeptContexts, shown: int, weaker: int
) -> Contexts:
  """Chooses the contexts that a report shows.

  Near-duplicates of what is shown already are left out, and a document gives a
  second context only where there would be too few.

  Args:
    top: the strongest contexts.
    sample: the contexts of highest `sample_ranks`.
    shown: the number of strongest contexts of a latent.
    weaker: the number of contexts from lower quantiles, at most.
  """
  latents, tops = top.ranks.shape
  pairs = max(1, (tops + sample.ranks.shape[1]) ** 2)
  step = max(1, _MAX_PAIRS // pairs)
  parts = [
    _to_report(_part(top, some), _part(sample, some), shown, weaker)
    for some in (slice(at, at + step) for at in range(0, latents, step))
  ]
  names = (field.name for field in dataclasses.fields(Contexts))
  joined = {x: np.concatenate([getattr(p, x) for p in parts]) for x in names}
  return Contexts(**joined)


def _part(kept, latents: slice):
  return jax.tree.map(lambda x: np.asarray(x[latents]), kept)


def _to_report(top, sample, shown: int, weaker: int) -> Contexts:
  every = jax.tree.map(lambda *x: np.concatenate(x, axis=1), top, sample)
  values = every.values
  is_top = np.arange(values.shape[1]) < top.ranks.shape[1]
  before = _tokens_before_peak(every.tokens.shape[-1])
  clash = near_duplicates(every.tokens, before)
  same = every.document[:, None] == every.document[:, :, None]
  chosen = np.zeros(values.shape, bool)
  _choose(chosen, (values > 0) & is_top, clash, same, shown)
  weakest = values.min(axis=1, keepdims=True, initial=np.inf, where=chosen)
  strongest = chosen.sum(axis=1)
  below = (values > 0) & (values < weakest) & ~is_top
  _choose(chosen, below, clash, same, values.shape[1])
  return _arrange(every, chosen, strongest, shown, weaker)


def _choose(chosen, wanted, clash, same_document, most) -> None:
  """Adds to what is chosen [F, K], in order, until there are `most` of each.

  Args:
    chosen: what is chosen already; changed in place.
    wanted: what may be chosen, [F, K].
    clash: pairs of which only one is shown, [F, K, K].
    same_document: pairs from one document, [F, K, K].
    most: the number of contexts of each latent, at most.
  """
  for in_document in range(1, _PER_DOCUMENT + 1):
    for i in np.flatnonzero(wanted.any(axis=0)):
      of_document = np.sum(chosen & same_document[:, i], axis=1)
      chosen[:, i] |= (
        wanted[:, i]
        & (chosen.sum(axis=1) < most)
        & (of_document < in_document)
        & ~np.any(chosen & clash[:, i], axis=1)
      )


def _arrange(every, chosen, strongest, shown, weaker) -> Contexts:
  """Puts the strongest first, then the others at even steps of their ranks."""
  order = np.argsort(np.where(chosen, -every.values, 0), axis=1, kind="stable")
  others = chosen.sum(axis=1) - strongest
  step = np.maximum(others, weaker) / max(weaker, 1)
  place = np.arange(shown + weaker)[None]
  after = np.maximum(place - strongest[:, None], 0)
  spread = strongest[:, None] + ((after + 0.5) * step[:, None]).astype(int)
  count = strongest + np.minimum(others, weaker)
  is_there = place < count[:, None]
  column = np.where(place < strongest[:, None], place, spread)
  index = np.take_along_axis(order, np.where(is_there, column, 0), axis=1)

  def pick(x, empty):
    widen = lambda y: y.reshape(*y.shape, *(1,) * (x.ndim - 2))
    picked = np.take_along_axis(x, widen(index), axis=1)
    return np.where(widen(is_there), picked, empty)

  kept = jax.tree.map(pick, every, KeptContexts(**_EMPTY))
  before = _tokens_before_peak(kept.tokens.shape[-1])
  return Contexts(
    tokens=kept.tokens,
    activations=kept.activations,
    peak=np.full(index.shape, before, np.int32),
    position=kept.position,
    document=kept.document,
    count=count,
    top=strongest,
  )


def _scramble(bits: jax.Array) -> jax.Array:
  """Mixes 32 bits: one that differs changes about half (splitmix32)."""
  bits = bits + np.uint32(0x9E3779B9)
  bits = (bits ^ (bits >> 16)) * np.uint32(0x21F0AAAD)
  bits = (bits ^ (bits >> 15)) * np.uint32(0x735A2D97)
  return bits ^ (bits >> 15)


def _few_per_document(ranks, documents):
  """Sets ranks [F, N] to 0 but for the highest of each document."""
  n = np.arange(ranks.shape[1])
  mine, other = ranks[:, :, None], ranks[:, None]
  ahead = (other > mine) | ((other == mine) & (n[None] < n[:, None])[None])
  same = documents[:, None] == documents[:, :, None]
  ahead_of_me = jnp.sum(ahead & same & (other > 0), axis=2)
  return jnp.where(ahead_of_me < _PER_DOCUMENT, ranks, 0)


def _peaks(ranks):
  """Each row's highest rank and its first position, both [F, B]."""
  peaks = jnp.max(ranks, axis=1)
  time = jax.lax.broadcasted_iota(jnp.int32, ranks.shape, 1)
  # The same as argmax, which takes three times as long on CPU.
  at_peak = jnp.where(ranks == peaks[:, None], time, ranks.shape[1])
  return peaks.T, jnp.min(at_peak, axis=1).T


def _windows(latents, batch, rows, times, window):
  """Extracts windows around the peaks of the given rows [F, K]."""
  peak = jnp.take_along_axis(times, rows, axis=1)
  span = (
    peak[..., None]
    + jnp.arange(window)[None, None]
    - _tokens_before_peak(window)
  )
  inside = (span >= 0) & (span < latents.shape[1])
  rows, peak = rows[..., None], peak[..., None]
  span = jnp.clip(span, 0, latents.shape[1] - 1)
  segments = batch.segments
  inside &= segments[rows, span] == segments[rows, peak]
  latent = jnp.arange(latents.shape[-1])[:, None, None]
  return {
    "tokens": jnp.where(inside, batch.tokens[rows, span], -1),
    "activations": jnp.where(inside, latents[rows, span, latent], 0),
    "position": batch.positions[rows, peak][..., 0],
    "document": batch.documents[rows, peak][..., 0],
  }


def _tokens_before_peak(window: int) -> int:
  """Number of tokens before the peak: most, as the model reads only these."""
  return window * 2 // 3
