"""The rule by which each side's settings are chosen."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any


@dataclasses.dataclass(frozen=True)
class Point:
  """One point of a grid, and what came of it at the target tuned at.

  Attributes:
    rate: the peak learning rate.
    pull: λ where ‖x‖² is 1.
    decay: of Adam's second moment.
    found: figures of the autoencoder, `l0` among them.
  """

  rate: float
  pull: float
  decay: float
  found: Any

  @property
  def values(self) -> tuple[float, float, float]:
    """As a `Trial` takes them."""
    return self.rate, self.pull, self.decay


@dataclasses.dataclass(frozen=True)
class Outcome:
  """How one side did.

  Attributes:
    points: the grid.
    chosen: the point that all seeds were trained with.
    found: for each seed the figures of each target.
  """

  points: tuple[Point, ...]
  chosen: Point
  found: tuple[tuple[Any, ...], ...]


def choose(
  points: Sequence[Point],
  target: float,
  close: float,
  loss: Callable[[Any], float],
) -> Point:
  """The point of least loss near the target; if none is near, the nearest.

  Args:
    points: the grid.
    target: of L0.
    close: share of it that an L0 may be off.
    loss: of what was found.
  """
  off = lambda point: abs(point.found.l0 / target - 1)
  near = [point for point in points if off(point) <= close]
  if not near:
    return min(points, key=off)
  return min(near, key=lambda point: loss(point.found))
