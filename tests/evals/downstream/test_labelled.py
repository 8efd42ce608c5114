"""Training and test texts are balanced, apart, and drawn by the seed."""

import numpy as np
import pytest

from jaxsae.errors import UserError
from jaxsae.evals.downstream.labelled import LabelledTexts, split


def texts(labels, **fields):
  return LabelledTexts(
    "set", [f"t{i}" for i in range(len(labels))], labels, **fields
  )


LABELS = list("aaaaaabbbc" * 60)


@pytest.mark.parametrize("positive", ["a", "b", "c"])
def test_both_parts_are_balanced_and_apart(positive):
  found = split(texts(LABELS), positive, train=120, test=40, seed=0)
  labels = np.array(LABELS)
  assert not set(found.train) & set(found.test)
  for part, most in ((found.train, 120), (found.test, 40)):
    assert len(set(part)) == len(part) <= most
    assert np.sum(labels[part] == positive) == len(part) // 2


def test_other_classes_have_as_many_texts_each():
  found = split(texts(list("abcd" * 100)), "a", train=120, test=60, seed=1)
  counts = [
    np.sum(np.array(list("abcd" * 100))[found.train] == c) for c in "abcd"
  ]
  assert counts == [60, 20, 20, 20]


def test_a_seed_draws_the_same_texts_again_and_another_draws_others():
  draw = lambda seed: split(texts(LABELS), "a", 100, 40, seed).train.tolist()
  assert draw(3) == draw(3) != draw(4)


def test_a_fifth_of_each_class_is_for_the_test():
  groups = [str(i // 5) for i in range(len(LABELS))]
  for given in (texts(LABELS), texts(LABELS, groups=groups)):
    found = split(given, "a", 1000, 1000, seed=0)
    tested = np.isin(np.arange(len(LABELS)), found.test)
    for name, least in (("a", 30), ("b", 12), ("c", 4)):
      assert np.sum(tested & (np.array(LABELS) == name)) >= least


def test_groups_stay_together():
  groups = [str(i // 8) for i in range(len(LABELS))]
  found = split(texts(LABELS, groups=groups), "a", 1000, 1000, seed=0)
  of = lambda part: {groups[i] for i in part}
  assert not of(found.train) & of(found.test)


def test_texts_that_come_divided_stay_divided():
  is_test = [i % 3 == 0 for i in range(len(LABELS))]
  found = split(texts(LABELS, is_test=is_test), "b", 1000, 1000, seed=0)
  assert all(is_test[i] for i in found.test)
  assert not any(is_test[i] for i in found.train)


def test_two_classes_are_one_task_and_more_are_one_each():
  assert texts(list("0110")).tasks == {"set": "1"}
  assert texts(list("abcabb")).tasks == {
    "set=b": "b",
    "set=a": "a",
    "set=c": "c",
  }
  assert len(texts(list("abcdefghij") * 3).tasks) == 5


def test_too_few_texts_of_a_class_are_refused():
  with pytest.raises(UserError, match="3 texts of 'b'"):
    split(
      texts(["a"] * 50 + ["b"] * 3, is_test=[False] * 53), "b", 100, 100, seed=0
    )


def test_labels_must_be_as_many_as_texts():
  with pytest.raises(UserError, match="2 texts but 1 labels"):
    LabelledTexts("set", ["x", "y"], ["a"])
