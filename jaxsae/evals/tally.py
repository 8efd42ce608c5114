"""Sums over the tokens of each document, or of other groups, on the host.

The tokens of one document are not independent of one another, but documents
nearly are. What is known of each is therefore what intervals are made of.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np

from jaxsae.evals.keeper import Figures


@dataclasses.dataclass(frozen=True)
class Places:
  """The places of the groups of some tokens in a tally.

  Attributes:
    mask: where a token counts, bool [B, T].
    of_tokens: the place of the group of each of those, int [tokens].
  """

  mask: np.ndarray
  of_tokens: np.ndarray


class Tally:
  """Sums of named values over the tokens of each group, in float64.

  Groups are named by whole numbers, such as a document's, and have places in
  the order in which they come.
  """

  def __init__(self) -> None:
    self._places: dict[int, int] = {}
    self._sums: dict[str, np.ndarray] = {}

  def __len__(self) -> int:
    return len(self._places)

  @property
  def groups(self) -> list[int]:
    """The groups, in the order of their places."""
    return list(self._places)

  def places(self, groups: np.ndarray, mask: np.ndarray) -> "Places":
    """Finds the places of the groups of some tokens, for `add`.

    Args:
      groups: the group of each token, int [B, T].
      mask: where a token counts, [B, T].
    """
    mask = mask > 0
    found, index = np.unique(groups[mask], return_inverse=True)
    every = [self._places.setdefault(int(one), len(self)) for one in found]
    return Places(mask, np.array(every, np.int64)[index.reshape(-1)])

  def add(self, places: "Places", values: Mapping[str, np.ndarray]) -> None:
    """Adds values of some tokens: name → the value of each, [B, T]."""
    for name, value in values.items():
      weights = value[places.mask].astype(np.float64)
      new = np.bincount(places.of_tokens, weights, len(self))
      self._sums[name] = self[name] + new

  def __getitem__(self, name: str) -> np.ndarray:
    """Returns the sums of a value, float64 [groups]; 0 where there is none."""
    sums = self._sums.get(name, np.zeros(0))
    return np.pad(sums, (0, len(self) - len(sums)))

  def total(self, name: str) -> float:
    """Returns the sum of a value over all groups."""
    return float(self._sums[name].sum())

  def figures(self, prefix: str) -> Figures:
    """Returns all sums as arrays, exactly; their names begin with a prefix."""
    found = {f"{prefix}{name}": self[name] for name in self._sums}
    return found | {f"{prefix}groups": np.array(self.groups, np.int64)}

  def recall(self, found: Figures, prefix: str) -> None:
    """Goes on with the sums that `figures` returned."""
    groups = found[f"{prefix}groups"].tolist()
    self._places = {group: place for place, group in enumerate(groups)}
    for name, sums in found.items():
      if name.startswith(prefix) and name != f"{prefix}groups":
        self._sums[name.removeprefix(prefix)] = sums.copy()
