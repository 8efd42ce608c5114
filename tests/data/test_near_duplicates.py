"""Copies with small changes are counted across the split, in bounded time."""

import numpy as np
import pytest

from jaxsae.data import near_duplicates as near


def text(*documents):
  """Returns the flat tokens of documents, and their offsets."""
  return np.concatenate(documents), np.cumsum([0, *map(len, documents)])


@pytest.fixture
def documents():
  """40 unlike documents; the first is held out, as is the last."""
  draw = np.random.default_rng(0)
  return [draw.integers(0, 50_000, 300).astype(np.uint32) for _ in range(40)]


HELD = np.array([39, 0])


def count(documents):
  return near.near_duplicates(*text(*documents), HELD)


def test_unlike_documents_are_none(documents):
  assert count(documents) == near.NearDuplicates(0, 2, 1.0)


@pytest.mark.parametrize("at", [1, 20, 38])
def test_a_copy_with_some_changes_is_one(documents, at):
  documents[at] = documents[39].copy()
  documents[at][[10, 150]] += 1
  assert count(documents).found == 1


def test_a_document_within_a_longer_one_is_one(documents):
  documents[7] = np.concatenate([documents[8], documents[0], documents[9]])
  assert count(documents).found == 1


def test_a_shared_passage_is_none(documents):
  documents[7][:140] = documents[0][:140]
  assert count(documents).found == 0


def test_copies_on_the_same_side_are_none(documents):
  documents[39] = documents[0]
  documents[7] = documents[8]
  assert count(documents).found == 0


def test_documents_that_are_too_short_are_not_looked_at(documents):
  documents[0] = documents[1][:15]
  documents[39] = documents[2][:16]
  found = count(documents)
  assert (found.found, found.looked_at) == (1, 1)


@pytest.mark.parametrize("piece", [16, 100, 299, 301, 4096])
def test_pieces_do_not_change_what_is_found(documents, monkeypatch, piece):
  monkeypatch.setattr(near, "_PIECE", piece)
  documents[17] = documents[39].copy()
  documents[17][[10, 150]] += 1
  assert count(documents).found == 1
  documents[17] = documents[18]
  assert count(documents).found == 0


def test_a_long_text_is_looked_at_in_part(documents, monkeypatch):
  monkeypatch.setattr(near, "_PIECE", 300)
  monkeypatch.setattr(near, "_TOKENS", 3000)
  monkeypatch.setattr(near, "DOCUMENTS", 1)
  found = count(documents)
  assert (found.looked_at, found.share) == (1, 0.25)
