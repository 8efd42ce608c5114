"""Times several functions in turns, so that a comparison is fair.

The functions take turns in one process, so other work on the machine slows all
of them. Even so the machine should be idle: PyTorch's threads wait for one
another after every operation, so one busy core can slow PyTorch several times
as much as XLA.
"""

import statistics
import time
from collections.abc import Callable, Iterable

TURNS = 7


def take(
  functions: Iterable[Callable[[], object]],
  turns: int = TURNS,
  clock: Callable[[], float] = time.perf_counter,
) -> list[list[float]]:
  """Returns the seconds of each function's turns, after one turn of warm-up.

  `clock` may return an array of several times; the result then holds arrays.
  """
  functions = list(functions)
  for function in functions:
    function()
  times = [[] for _ in functions]
  for _ in range(turns):
    for function, seconds in zip(functions, times, strict=True):
      begin = clock()
      function()
      seconds.append(clock() - begin)
  return times


def ratio(over: Iterable[float], under: Iterable[float]) -> float:
  """Returns the median over turns of one function's time over another's."""
  return statistics.median(a / b for a, b in zip(over, under, strict=True))
