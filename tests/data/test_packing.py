"""Rows hold every token once, and say which segment it belongs to."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxsae.data.corpus import Rows
from jaxsae.data.packing import pack

BOS = 1

corpora = st.tuples(
  st.lists(st.integers(0, 40), min_size=1, max_size=20),
  st.integers(2, 17),
  st.randoms(use_true_random=False),
)


def pack_lengths(lengths, context, random):
  order = list(range(len(lengths)))
  random.shuffle(order)
  offsets = np.cumsum([0, *lengths])
  # Every token is its own place in the store, so that none looks like another.
  store = np.arange(10, 10 + offsets[-1], dtype=np.uint16)
  rows = Rows(pack(np.array(order), offsets, context), store, BOS, "")
  return rows, store, order


@settings(deadline=None)
@given(corpora)
def test_every_token_is_in_exactly_one_place(drawn):
  rows, store, _ = pack_lengths(*drawn)
  batch = rows.read(range(len(rows)))
  text = batch.tokens[(batch.segments > 0) & (batch.positions > 0)]
  assert sorted(text) == store.tolist()


@settings(deadline=None)
@given(corpora)
def test_documents_follow_one_another_in_order(drawn):
  rows, _, order = pack_lengths(*drawn)
  segments = rows.table.documents.tolist()
  documents = list(dict.fromkeys(segments))
  assert documents == [i for i in order if drawn[0][i]]


@settings(deadline=None)
@given(corpora)
def test_segments_and_positions(drawn):
  rows, _, _ = pack_lengths(*drawn)
  batch = rows.read(range(len(rows)))
  for tokens, segments, positions, document in zip(
    batch.tokens,
    batch.segments,
    batch.positions,
    batch.documents,
    strict=True,
  ):
    used = segments > 0
    assert used.argmin() == used.sum() or used.all()  # padding comes last
    assert (np.diff(segments[used]) >= 0).all()
    assert segments[0] == 1
    for segment in range(1, segments.max() + 1):
      inside = segments == segment
      assert tokens[inside][0] == BOS
      assert inside.sum() >= 2
      assert positions[inside].tolist() == list(range(inside.sum()))
      assert len(set(document[inside])) == 1
    assert (tokens[~used] == 0).all() and (document[~used] == -1).all()


@settings(deadline=None)
@given(corpora)
def test_only_the_last_row_has_more_than_one_free_place(drawn):
  rows, _, _ = pack_lengths(*drawn)
  free = (rows.read(range(len(rows))).segments == 0).sum(1)
  assert (free[:-1] <= 1).all()


def test_padding_and_tokens_count_the_places(corpus):
  rows = corpus.train
  used = (rows.read(range(len(rows))).segments > 0).sum()
  assert rows.tokens == used
  assert np.isclose(rows.padding, 1 - used / (len(rows) * rows.context))
