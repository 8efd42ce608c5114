"""Compares autoencoders that have different L0 at the same L0.

One seed's frontier is the line through its autoencoders, linear in log L0.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

# For each seed, the figures of its autoencoders, which include `l0`.
Seeds = Sequence[Sequence[Any]]


def shared_l0s(sides: Iterable[Seeds]) -> tuple[float, ...]:
  """Three L0s that all seeds of all sides reach: smallest, middle, largest.

  Returns:
    The L0s in ascending order; () if there is none.
  """
  l0s = [values(of_seed, "l0") for seeds in sides for of_seed in seeds]
  least, most = max(map(min, l0s)), min(map(max, l0s))
  if least >= most:
    return ()
  return least, math.sqrt(least * most), most


def at(l0: float, seeds: Seeds, figure: str) -> list[float]:
  """A figure of each seed, interpolated at an L0 that the seed reaches."""
  return [
    _interpolate(l0, values(of_seed, "l0"), values(of_seed, figure))
    for of_seed in seeds
  ]


def values(of_seed: Sequence[Any], figure: str) -> list[float]:
  """One figure of each of a seed's autoencoders."""
  return [getattr(result, figure) for result in of_seed]


def _interpolate(l0: float, l0s: list[float], figures: list[float]) -> float:
  order = np.argsort(l0s)
  xs, ys = np.log(l0s)[order], np.asarray(figures)[order]
  return float(np.interp(math.log(l0), xs, ys))
