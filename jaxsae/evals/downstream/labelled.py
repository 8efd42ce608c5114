"""Labelled texts, and how they are divided into training and test texts."""

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from jaxsae.errors import UserError
from jaxsae.evals.downstream.pool import Pool

CLASSES = 5  # of one set of texts; SAEBench's sets have at most as many
_LEAST = 10  # texts of either class that a probe is trained or tested on
_TEST_SHARE = 0.2  # of texts that come undivided


@dataclasses.dataclass(frozen=True)
class LabelledTexts:
  """Texts with a label each, which probes are to tell apart.

  Attributes:
    name: the name of the set.
    texts: the texts.
    labels: the class of each text.
    pool: how the tokens of a text become one vector, see `pool.py`.
    groups: texts of one group, such as those of one file, are all in training
      or all in the test, and are resampled together. None: each is its own.
    is_test: whether each is a text to test on. None: a fifth of the groups is.
  """

  name: str
  texts: Sequence[str]
  labels: Sequence[str]
  pool: Pool = "mean"
  groups: Sequence[str] | None = None
  is_test: Sequence[bool] | None = None

  def __post_init__(self):
    for field in ("labels", "groups", "is_test"):
      given = getattr(self, field)
      if given is not None and len(given) != len(self.texts):
        raise UserError(
          f"{self.name} has {len(self.texts)} texts but {len(given)} {field};"
          " give one for each text."
        )

  def __repr__(self) -> str:
    """Names the set, its size and its classes, in one line."""
    return (
      f"LabelledTexts({self.name!r}, {len(self.texts)} texts of"
      f" {len(set(self.labels))} classes, pool={self.pool!r})"
    )

  def take(self, kept: Iterable[int]) -> "LabelledTexts":
    """Returns the set with some of its texts only, by number."""
    numbers = list(kept)
    some = lambda x: None if x is None else [x[i] for i in numbers]
    fields = ("texts", "labels", "groups", "is_test")
    taken = {field: some(getattr(self, field)) for field in fields}
    return dataclasses.replace(self, **taken)

  @property
  def classes(self) -> list[str]:
    """The classes to probe for, the most frequent first, at most `CLASSES`."""
    names, counts = np.unique(self.labels, return_counts=True)
    order = np.lexsort((names, -counts))
    return [str(name) for name in names[order][:CLASSES]]

  @property
  def tasks(self) -> dict[str, str]:
    """Name of each task → the class to tell from the others.

    Two classes are one task; of more, each is a task against all others.
    """
    if len(self.classes) == 2:
      return {self.name: max(self.classes)}
    return {f"{self.name}={name}": name for name in self.classes}

  @property
  def group_numbers(self) -> np.ndarray:
    """The number of each text's group, from 0."""
    if self.groups is None:
      return np.arange(len(self.texts))
    return np.unique(self.groups, return_inverse=True)[1]


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
  """The texts of one task by number, as many of one class as of the others.

  Attributes:
    train: numbers of the texts to train on.
    test: numbers of the texts to test on.
  """

  train: np.ndarray
  test: np.ndarray

  def renumbered(self, kept: np.ndarray) -> "Split":
    """Returns the split of a set that keeps some texts only, in order."""
    return Split(
      np.searchsorted(kept, self.train), np.searchsorted(kept, self.test)
    )


def split(
  texts: LabelledTexts, positive: str, train: int, test: int, seed: int
) -> Split:
  """Draws the texts that a task is trained and tested on.

  As in SAEBench, half are of the class, and the other half has as many of each
  other class. Where classes are small, there are fewer texts.

  Args:
    texts: the texts.
    positive: the class to tell from the others.
    train: texts to train on, at most.
    test: texts to test on, at most.
    seed: decides the draw.

  Raises:
    UserError: there are too few texts of a class.
  """
  rng = np.random.default_rng(seed)
  for_test = _test_texts(texts, rng)
  found = []
  for size, part in ((train, ~for_test), (test, for_test)):
    found.append(_balanced(texts, positive, np.flatnonzero(part), size, rng))
  return Split(*found)


def _test_texts(texts: LabelledTexts, rng: np.random.Generator) -> np.ndarray:
  """Returns bool [N]: groups with a fifth of the texts of each class."""
  if texts.is_test is not None:
    return np.array(texts.is_test, bool)
  names, classes = np.unique(texts.labels, return_inverse=True)
  groups = texts.group_numbers
  sizes = np.zeros((groups.max() + 1, len(names)), int)
  np.add.at(sizes, (groups, classes), 1)
  room = _TEST_SHARE * sizes.sum(axis=0)
  chosen = np.zeros(len(sizes), bool)
  for group in rng.permutation(len(sizes)):
    chosen[group] = np.all(sizes[group] <= room)
    room = room - chosen[group] * sizes[group]
  return chosen[groups]


def _balanced(
  texts: LabelledTexts,
  positive: str,
  part: np.ndarray,
  size: int,
  rng: np.random.Generator,
) -> np.ndarray:
  part = rng.permutation(part)
  labels = np.array(texts.labels)[part]
  own = part[labels == positive]
  others = [part[labels == name] for name in texts.classes if name != positive]
  rest = np.array(list(_in_turn(others)), int)
  each = min(size // 2, len(own), len(rest))
  if each < _LEAST:
    raise UserError(
      f"{texts.name} has {len(own)} texts of {positive!r} and {len(rest)} of"
      f" other classes to train or test a probe on; give {_LEAST} or more of"
      " each, in training and in the test."
    )
  return rng.permutation(np.concatenate([own[:each], rest[:each]]))


def _in_turn(lists: Sequence[np.ndarray]) -> Iterator[int]:
  """Yields one of each list, again and again, until all are empty."""
  missing = object()
  for turn in itertools.zip_longest(*lists, fillvalue=missing):
    yield from (x for x in turn if x is not missing)
