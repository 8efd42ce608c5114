"""Autoencoders of unlike L0 compared at the same L0.

One seed's frontier is the line through its autoencoders, in log L0.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

# For each seed, figures of its autoencoders, `l0` among them.
Seeds = Sequence[Sequence[Any]]


def shared(sides: Iterable[Seeds]) -> tuple[float, ...]:
  """Three L0s that all seeds of all sides reach: the ends, and the middle.

  Returns:
    Ascending; () if there is no such L0.
  """
  l0s = [every(of_seed, "l0") for seeds in sides for of_seed in seeds]
  least, most = max(map(min, l0s)), min(map(max, l0s))
  if least >= most:
    return ()
  return least, math.sqrt(least * most), most


def at(l0: float, seeds: Seeds, figure: str) -> list[float]:
  """A figure of each seed at an L0 that it reaches."""
  return [
    _on_line(l0, every(of_seed, "l0"), every(of_seed, figure))
    for of_seed in seeds
  ]


def every(of_seed: Sequence[Any], figure: str) -> list[float]:
  return [getattr(found, figure) for found in of_seed]


def _on_line(l0: float, l0s: list[float], values: list[float]) -> float:
  order = np.argsort(l0s)
  xs, ys = np.log(l0s)[order], np.asarray(values)[order]
  return float(np.interp(math.log(l0), xs, ys))
