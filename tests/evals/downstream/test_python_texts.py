"""Texts of the standard library are what their labels say, and the same."""

import keyword

import numpy as np
import pytest

from jaxsae.evals.downstream.python_texts import python_texts


@pytest.fixture(scope="module")
def sets():
  return {texts.name: texts for texts in python_texts(60)}


def test_classes_are_balanced(sets):
  assert len(sets) == 4
  for texts in sets.values():
    _, counts = np.unique(texts.labels, return_counts=True)
    assert (counts == 60 // len(counts)).all()
    assert len(texts.tasks) in (1, len(counts))
    assert len(set(texts.groups)) > 3


def test_they_are_the_same_again(sets):
  (again,) = python_texts(60, only=["python_docstring"])
  first = sets["python_docstring"]
  assert again.texts == first.texts and again.labels == first.labels


def test_a_text_ends_as_its_label_says(sets):
  texts = sets["python_keyword"]
  for text, label in zip(texts.texts, texts.labels, strict=True):
    last = text.replace(".", " ").split()[-1].lstrip("([{-*~!=:,@%+/<>|&^")
    assert not last.isidentifier() or (
      keyword.iskeyword(last) == (label == "keyword")
    )
  texts = sets["python_indentation"]
  for text, label in zip(texts.texts, texts.labels, strict=True):
    last = text.splitlines()[-1]
    assert len(last) - len(last.lstrip(" ")) == int(label)


def test_groups_are_files_of_the_class(sets):
  texts = sets["python_package"]
  for group, label in zip(texts.groups, texts.labels, strict=True):
    assert group.startswith(f"{label}/")
