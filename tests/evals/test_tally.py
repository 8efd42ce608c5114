"""Sums by document are those of their tokens, whatever the order of steps."""

import numpy as np
import pytest

from jaxsae.evals.tally import Tally

DOCUMENTS = np.array([[7, 7, 3], [3, 7, 9], [900, 9, 9]])
MASK = np.array([[1, 1, 1], [0, 1, 1], [1, 0, 1]], bool)
VALUES = np.arange(9.0).reshape(3, 3)


def tally(steps):
  made = Tally()
  for rows in steps:
    places = made.places(DOCUMENTS[rows], MASK[rows])
    made.add(places, {"x": VALUES[rows], "tokens": MASK[rows]})
  return made


@pytest.mark.parametrize(
  "steps", [[slice(3)], [slice(1), slice(1, 3)], [[2], [0], [1]]]
)
def test_sums_are_those_of_the_tokens_that_count(steps):
  made = tally(steps)
  assert len(made) == 4
  assert made.total("x") == VALUES[MASK].sum()
  for place, document in enumerate(made.groups):
    own = (document == DOCUMENTS) & MASK
    assert made["x"][place] == VALUES[own].sum()
    assert made["tokens"][place] == own.sum()


def test_what_some_documents_lack_counts_as_zero():
  made = Tally()
  made.add(made.places(DOCUMENTS[:1], MASK[:1]), {"x": VALUES[:1]})
  made.add(made.places(DOCUMENTS[2:], MASK[2:]), {"y": VALUES[2:]})
  assert made["x"].tolist() == [2, 1, 0, 0]
  assert made["y"].tolist() == [0, 0, 8, 6]
  assert made["z"].tolist() == [0] * 4


def test_what_is_recalled_goes_on_alike():
  whole, half = tally([[0], [1, 2]]), tally([[0]])
  found = {k: v.copy() for k, v in half.figures("a/").items()}
  other = Tally()
  other.recall(found | {"b/x": np.ones(3)}, "a/")
  places = other.places(DOCUMENTS[1:], MASK[1:])
  other.add(places, {"x": VALUES[1:], "tokens": MASK[1:]})
  assert other.groups == whole.groups
  np.testing.assert_array_equal(other["x"], whole["x"])
  np.testing.assert_array_equal(other["tokens"], whole["tokens"])


def test_steps_without_text_add_nothing():
  made = Tally()
  made.add(made.places(DOCUMENTS, 0 * MASK), {"x": VALUES})
  assert len(made) == 0
