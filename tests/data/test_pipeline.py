"""Batches come in one global order, whoever reads them and wherever from."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from jaxsae import data
from jaxsae.errors import UserError

BATCH = 4


def take(batches, count):
  return [next(batches) for _ in range(count)]


def row_keys(batches):
  """One bytes object per row."""
  return [row.tobytes() for batch in batches for row in batch.tokens]


def test_an_epoch_reads_every_row_once(corpus):
  rows = corpus.train
  read = row_keys(take(data.batches(rows, BATCH), len(rows)))  # four epochs
  every = sorted(row_keys([rows.read(range(len(rows)))]))
  epochs = [read[i : i + len(rows)] for i in range(0, len(read), len(rows))]
  assert len(epochs) == BATCH and epochs[0] != epochs[1]
  assert all(sorted(epoch) == every for epoch in epochs)


def test_the_seed_decides_the_order(corpus):
  first, again, other = (
    row_keys(take(data.batches(corpus.train, BATCH, seed=s), 5))
    for s in (0, 0, 1)
  )
  assert first == again != other


@pytest.mark.parametrize("mine", [[0], [1, 3], [3, 0, 1]])
def test_a_process_reads_its_own_places_of_every_batch(corpus, mine):
  whole = take(data.batches(corpus.train, BATCH), 30)
  share = take(data.batches(corpus.train, BATCH, mine=mine), 30)
  for batch, part in zip(whole, share, strict=True):
    jax.tree.map(
      lambda all_rows, own: np.testing.assert_array_equal(own, all_rows[mine]),
      batch,
      part,
    )


@pytest.mark.parametrize("at", [0, 1, 7, 29])  # an epoch is about nine batches
def test_a_saved_position_continues_the_stream(corpus, at):
  straight = data.batches(corpus.train, BATCH)
  take(straight, at)
  state = json.loads(json.dumps(straight.get_state()))
  expected = row_keys(take(straight, 12))
  resumed = data.batches(corpus.train, BATCH)
  take(resumed, 3)  # set_state must also move a running iterator
  resumed.set_state(state)
  assert row_keys(take(resumed, 12)) == expected
  assert resumed.get_state() == straight.get_state()


def test_the_position_is_the_same_on_every_process(corpus):
  one = data.batches(corpus.train, BATCH)
  take(one, 5)
  other = data.batches(corpus.train, BATCH, mine=[2])
  other.set_state(one.get_state())
  np.testing.assert_equal(next(other).tokens, next(one).tokens[[2]])
  assert other.get_state() == one.get_state()


def test_a_state_of_other_batches_is_refused(corpus, config, tokenizer):
  longer = data.open_corpus(dataclasses.replace(config, context=48), tokenizer)
  here = data.batches(corpus.train, BATCH)
  for name, other in {
    "corpus": data.batches(longer.train, BATCH),
    "batch": data.batches(corpus.train, 2 * BATCH),
    "seed": data.batches(corpus.train, BATCH, seed=5),
  }.items():
    with pytest.raises(UserError, match=f"{name} was .* and is now"):
      here.set_state(other.get_state())


def test_a_position_that_is_no_count_is_refused(corpus):
  batches = data.batches(corpus.train, BATCH)
  for wrong in (-1, "3", None, True):
    with pytest.raises(UserError, match="next_batch"):
      batches.set_state(batches.get_state() | {"next_batch": wrong})


def test_too_few_rows_are_counted(corpus):
  rows = len(corpus.train)
  with pytest.raises(UserError, match=f"makes {rows} rows .* needs 1000"):
    data.batches(corpus.train, 1000)


def test_held_out_rows_come_once_in_order(corpus):
  rows = corpus.held_out
  batches = [b.tokens for b in data.held_out_batches(corpus, BATCH)]
  assert all(batch.shape == (BATCH, rows.context) for batch in batches)
  tokens = np.concatenate(batches)
  expected = rows.read(range(len(rows))).tokens
  np.testing.assert_array_equal(tokens[: len(rows)], expected)
  assert not tokens[len(rows) :].any()


def test_the_contents_of_a_batch_are_told_without_reading_on(corpus):
  batches = data.batches(corpus.train, BATCH)
  take(batches, len(corpus.train) // BATCH + 1)
  state = batches.get_state()
  what = json.loads(json.dumps(batches.contents(state)))
  batch = next(batches)
  rows = corpus.train.read(what["rows"])
  np.testing.assert_array_equal(rows.tokens, batch.tokens)
  assert what["documents"] == sorted({*batch.documents.ravel()} - {-1})
  assert what["pass"] == 2
  assert batches.contents(state)["rows"] == what["rows"]


def test_the_contents_are_those_of_all_processes(corpus):
  state = {"next_batch": 3}
  whole = data.batches(corpus.train, BATCH).contents(state)
  share = data.batches(corpus.train, BATCH, mine=[1]).contents(state)
  assert share == whole


def test_what_was_closed_goes_on_where_it_was(corpus):
  straight = row_keys(take(data.batches(corpus.train, BATCH), 6))
  batches = data.batches(corpus.train, BATCH)
  first = row_keys(take(batches, 2))
  batches.close()
  assert first + row_keys(take(batches, 4)) == straight
