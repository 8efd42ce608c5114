"""Near-duplicates are contexts that share most of their text."""

import numpy as np
import pytest

from jaxsae.explore import duplicates
from jaxsae.explore.duplicates import near_duplicates

RNG = np.random.default_rng(0)
PEAK = 21


def text(size=32):
  return RNG.integers(4, 60_000, size)


def is_near(one, other, peak=PEAK):
  pairs = near_duplicates(np.stack([one, other])[None], peak)
  assert (pairs == pairs.transpose(0, 2, 1)).all()
  return bool(pairs[0, 0, 1])


def test_equal_contexts_are_and_unrelated_ones_are_not():
  one = text()
  assert is_near(one, one)
  assert not any(is_near(text(), text()) for _ in range(200))


@pytest.mark.parametrize("changed", [1, 4])
def test_some_other_tokens_do_not_hide_a_copy(changed):
  one = text()
  other = one.copy()
  other[RNG.choice(32, changed, replace=False)] = 3
  assert is_near(one, other)


@pytest.mark.parametrize("by", [-6, 1, 6])
def test_a_copy_that_is_shifted_is_found(by):
  long = text(48)
  assert is_near(long[8:40], long[8 + by : 40 + by])


def test_a_shared_phrase_is_no_copy():
  one, other = text(), text()
  other[PEAK - 8 : PEAK + 1] = one[PEAK - 8 : PEAK + 1]
  assert not is_near(one, other)


def test_the_same_words_in_another_order_are_no_copy():
  one = text()
  assert not is_near(one, RNG.permutation(one))


def test_contexts_of_one_token_are_compared_by_it():
  assert is_near(np.array([7]), np.array([7]), peak=0)
  assert not is_near(np.array([7]), np.array([8]), peak=0)


def test_missing_contexts_are_duplicates_of_nothing():
  none = np.full(32, -1)
  assert not is_near(none, none)
  assert not is_near(none, text())


@pytest.mark.parametrize("at_once", [2**19, 100, 1])
def test_many_latents_are_compared_each_for_itself(monkeypatch, at_once):
  monkeypatch.setattr(duplicates, "_MAX_PAIRS", at_once)
  tokens = RNG.integers(4, 60_000, (600, 3, 8))
  tokens[::2, 2] = tokens[::2, 0]
  found = near_duplicates(tokens, 5)
  wanted = np.zeros((600, 3, 3), bool)
  wanted[:, range(3), range(3)] = True
  wanted[::2, 0, 2] = wanted[::2, 2, 0] = True
  np.testing.assert_array_equal(found, wanted)
