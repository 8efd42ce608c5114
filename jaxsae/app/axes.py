"""The axes of plots of 340 by 220 pixels."""

import math
from collections.abc import Callable, Sequence

FRAME = {"left": 44, "right": 326, "top": 10, "bottom": 178}

Scale = Callable[[float], float]


def log_axis(values: Sequence[float]) -> tuple[Scale, list[float]]:
  """Returns a map from values to pixels, and ticks at powers of two."""
  low, high = min(values, default=8) / 1.5, max(values, default=64) * 1.5
  powers = range(math.ceil(math.log2(low)), math.floor(math.log2(high)) + 1)
  width = (FRAME["right"] - FRAME["left"]) / math.log2(high / low)
  stride = math.ceil(len(powers) / 6)
  return (
    lambda value: FRAME["left"] + math.log2(value / low) * width,
    [2.0**power for power in powers[::stride]],
  )


def linear_axis(values: Sequence[float]) -> tuple[Scale, list[float]]:
  """Returns a map from values to pixels, and up to six round ticks with 0."""
  low, high = min([0, *values]), max([0, *values])
  reach = high - low or 1
  ten = 10 ** math.floor(math.log10(reach / 4))
  step = next(k * ten for k in (1, 2, 5, 10) if 4 * k * ten >= reach)
  first, last = math.floor(low / step), max(1, math.ceil(high / step))
  height = (FRAME["bottom"] - FRAME["top"]) / (last - first)
  return (
    lambda value: FRAME["bottom"] - (value / step - first) * height,
    [step * i for i in range(first, last + 1)],
  )
