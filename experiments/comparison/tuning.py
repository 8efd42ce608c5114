"""The rule that chooses each side's settings."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any


@dataclasses.dataclass(frozen=True)
class Point:
  """One point of a grid, with its figures at the target used for tuning.

  Attributes:
    rate: the peak learning rate.
    sparsity_coefficient: λ where ‖x‖² is 1.
    decay: of Adam's second moment.
    result: figures of the autoencoder, which include `l0`.
  """

  rate: float
  sparsity_coefficient: float
  decay: float
  result: Any

  @property
  def values(self) -> tuple[float, float, float]:
    """The settings in the order in which `Trial` takes them."""
    return self.rate, self.sparsity_coefficient, self.decay


@dataclasses.dataclass(frozen=True)
class Outcome:
  """The grid, the choice and the results of one side.

  Attributes:
    points: the grid.
    chosen: the point that all seeds were trained with.
    results: for each seed, the figures at each target.
  """

  points: tuple[Point, ...]
  chosen: Point
  results: tuple[tuple[Any, ...], ...]


def choose(
  points: Sequence[Point],
  target: float,
  tolerance: float,
  loss: Callable[[Any], float],
) -> Point:
  """The point of least loss near the target; if none is near, the nearest.

  Args:
    points: the grid.
    target: the L0 aimed at.
    tolerance: how far L0 may be from the target, as a share of it.
    loss: computed from a point's result.
  """
  distance = lambda point: abs(point.result.l0 / target - 1)
  near = [point for point in points if distance(point) <= tolerance]
  if not near:
    return min(points, key=distance)
  return min(near, key=lambda point: loss(point.result))
