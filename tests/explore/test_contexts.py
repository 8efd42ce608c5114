"""Contexts agree with a search in plain Python."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsae.explore.contexts import (
  add_contexts,
  no_contexts,
  sample_ranks,
  to_report,
)
from jaxsae.token_batch import TokenBatch

ROWS, TIME, LATENTS = 12, 20, 6
SHOWN, WEAKER, WINDOW = 4, 2, 9
DEAD = 2


def make_text(seed=0, documents=0):
  """Makes packed rows, and latents of few values so that many are equal.

  Without a number of documents, each segment is one of its own.
  """
  rng = np.random.default_rng(seed)
  shape = (ROWS, TIME)
  latents = rng.integers(1, 5, (*shape, LATENTS)).astype("f4")
  latents *= rng.random(latents.shape) < 0.1
  latents[..., DEAD] = 0
  latents[:, 1:, 4] = 0  # its peaks are at the left edge
  latents[:, :-1, 5] = 0  # and at the right
  breaks = rng.random(shape) < 0.15
  segments = np.cumsum(breaks, axis=1, dtype="i4") + 1
  starts = np.maximum.accumulate(
    np.where(breaks, np.arange(TIME), 0), axis=1, dtype="i4"
  )
  of_own = segments * 100 + np.arange(ROWS, dtype="i4")[:, None]
  return latents, TokenBatch(
    tokens=rng.integers(50_000, size=shape, dtype="i4"),
    segments=segments,
    positions=np.arange(TIME, dtype="i4") - starts,
    documents=of_own % documents if documents else of_own,
  )


@jax.jit
def add(top, sample, latents, batch):
  ranks = sample_ranks(latents, batch)
  return (
    add_contexts(top, latents, latents, batch),
    add_contexts(sample, ranks, latents, batch),
  )


def found(
  latents, batch, sizes=(4, 8), window=WINDOW, shown=SHOWN, weaker=WEAKER
):
  """Finds the contexts, with the rows in batches of these sizes."""
  count = latents.shape[-1]
  top = no_contexts(count, shown, window)
  sample = no_contexts(count, weaker, window)
  for end, size in zip(itertools.accumulate(sizes), sizes, strict=True):
    rows = slice(end - size, end)
    part = jax.tree.map(lambda x, rows=rows: jnp.asarray(x[rows]), batch)
    top, sample = add(top, sample, jnp.asarray(latents[rows]), part)
  return to_report(top, sample, shown, weaker)


def strongest(latents, batch, latent):
  """Returns (row, time) of the peaks of rows, with few of each document."""
  best = [(row, int(np.argmax(latents[row, :, latent]))) for row in range(ROWS)]
  best = [(r, t) for r, t in best if latents[r, t, latent] > 0]
  best.sort(key=lambda at: -latents[*at, latent])
  chosen = []
  for most in (1, 2):
    for at in best:
      document = batch.documents[at]
      same = [x for x in chosen if batch.documents[x] == document]
      if len(chosen) < SHOWN and len(same) < most and at not in chosen:
        chosen.append(at)
  return sorted(chosen, key=best.index)


@pytest.mark.parametrize("documents", [0, 3, 1])
@pytest.mark.parametrize("sizes", [[12], [4, 4, 4], [8, 4]])
@pytest.mark.parametrize("seed", [0, 1])
def test_contexts_are_the_strongest_rows_for_any_batches(
  seed, sizes, documents
):
  latents, batch = make_text(seed, documents)
  contexts = found(latents, batch, sizes)
  for latent in range(LATENTS):
    best = strongest(latents, batch, latent)
    assert contexts.top[latent] == len(best)
    for k, (row, time) in enumerate(best):
      at = latent, k
      assert contexts.position[at] == batch.positions[row, time]
      assert contexts.document[at] == batch.documents[row, time]
      check_window(contexts, at, latents[..., latent], batch, row, time)


def check_window(contexts, at, activations, batch, row, time):
  peak = contexts.peak[at]
  assert contexts.activations[at][peak] == activations[row, time]
  for i in range(WINDOW):
    here = time + i - peak
    token, activation = -1, 0
    segments = batch.segments[row]
    if 0 <= here < TIME and segments[here] == segments[time]:
      token, activation = batch.tokens[row, here], activations[row, here]
    assert contexts.tokens[at][i] == token
    assert contexts.activations[at][i] == activation


def peaks_of(contexts):
  peak = contexts.peak[..., None]
  return np.take_along_axis(contexts.activations, peak, axis=-1)[..., 0]


def test_a_document_gives_at_most_two_contexts():
  contexts = found(*make_text(documents=2))
  for latent, count in enumerate(contexts.count):
    _, times = np.unique(contexts.document[latent, :count], return_counts=True)
    assert (times <= 2).all()
  assert contexts.count.max() == 4


def varied(rows=ROWS):
  """Makes text where one latent fires on every token, in documents of rows."""
  rng = np.random.default_rng(5)
  shape = (rows, TIME)
  latents = rng.permutation(np.arange(1, rows * TIME + 1)).reshape(*shape, 1)
  own = np.arange(rows, dtype="i4")[:, None]
  return latents.astype("f4"), TokenBatch(
    tokens=rng.integers(50_000, size=shape, dtype="i4"),
    segments=np.ones(shape, "i4"),
    positions=np.tile(np.arange(TIME, dtype="i4"), (rows, 1)),
    documents=np.tile(own, (1, TIME)),
  )


def test_near_duplicates_give_way_to_other_text():
  """A text that eight documents share is shown once; others take its place."""
  latents, batch = varied()
  batch.tokens[:8] = batch.tokens[0]
  batch.tokens[range(8), [3] * 8] = range(8)  # the copies differ in a token
  latents[:8, 10] += 1000
  contexts = found(latents, batch, [12], window=18)
  documents = contexts.document[0, : contexts.top[0]].tolist()
  assert contexts.top[0] == SHOWN
  assert sum(document < 8 for document in documents) == 1


@pytest.mark.parametrize(("shown", "weaker"), [(1, 0), (0, 2), (0, 0), (30, 9)])
def test_there_may_be_any_number_of_either(shown, weaker):
  latents, batch = varied()
  contexts = found(latents, batch, [12], shown=shown, weaker=weaker)
  assert contexts.tokens.shape == (1, shown + weaker, WINDOW)
  assert contexts.top[0] == min(shown, ROWS)
  assert contexts.count[0] <= shown + weaker


def test_then_come_contexts_of_lower_activations():
  latents, batch = varied()
  contexts = found(latents, batch, [12])
  values, top = peaks_of(contexts)[0], contexts.top[0]
  assert (top, contexts.count[0]) == (SHOWN, SHOWN + WEAKER)
  assert (np.diff(values) < 0).all()
  assert values[top] < 0.9 * values[top - 1]


def test_lower_contexts_are_a_random_sample_of_what_fires():
  """Their activations have the mean of all, over many latents."""
  rng = np.random.default_rng(0)
  _, batch = varied(rows=32)
  latents = rng.random((32, TIME, 400), "f4")
  sample = no_contexts(400, WEAKER, WINDOW)
  batch = jax.tree.map(jnp.asarray, batch)
  ranks = sample_ranks(jnp.asarray(latents), batch)
  sample = jax.jit(add_contexts)(sample, ranks, jnp.asarray(latents), batch)
  values = np.asarray(sample.values)
  assert (values > 0).all()
  assert abs(values.mean() - 0.5) < 0.02
  assert len(np.unique(np.asarray(sample.position)[0])) > 2


def test_batches_do_not_change_the_sample():
  latents, batch = make_text(3, documents=7)
  one, other = (found(latents, batch, sizes) for sizes in ([12], [4, 4, 4]))
  np.testing.assert_array_equal(one.tokens, other.tokens)
  np.testing.assert_array_equal(one.count, other.count)


def test_latents_are_chosen_from_in_parts(monkeypatch):
  text = make_text(documents=5)
  whole = found(*text)
  monkeypatch.setitem(to_report.__globals__, "_MAX_PAIRS", 1)
  for name, array in vars(found(*text)).items():
    np.testing.assert_array_equal(array, getattr(whole, name))


def test_a_latent_that_never_fires_has_none():
  contexts = found(*make_text())
  assert contexts.count[DEAD] == contexts.top[DEAD] == 0
  assert (contexts.tokens[DEAD] == -1).all()
  assert (contexts.activations[DEAD] == 0).all()
  assert (contexts.document[DEAD] == -1).all()


def test_missing_contexts_are_empty():
  latents, batch = make_text()
  latents[3:] = 0
  contexts = found(latents, batch)
  missing = np.arange(SHOWN + WEAKER)[None] >= contexts.count[:, None]
  assert missing[:, 3:].all(axis=0).any()
  assert (contexts.tokens[missing] == -1).all()
  assert (contexts.activations[missing] == 0).all()
  assert (contexts.document[missing] == -1).all()


@pytest.mark.parametrize("window", [1, 32])
def test_the_peak_is_inside_a_window_of_any_size(window):
  latents, batch = make_text()
  contexts = found(latents, batch, window=window)
  fires = contexts.count > 0
  at_peak = peaks_of(contexts)[fires, 0]
  strongest = contexts.activations[fires, 0].max(axis=1)
  np.testing.assert_array_equal(at_peak, strongest)
  assert (at_peak > 0).all()
