"""Turns: functions timed one after the other, again and again.

What is compared runs in one process, in turns, so whatever the machine does
meanwhile hits all sides. Still it needs the machine for itself: PyTorch's
threads wait for one another after every operation, so one busy neighbour can
slow it several times as much as it slows XLA.
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
  """Seconds of each turn of each function; a turn before them is not timed.

  They are of whatever `clock` tells, which may be an array of several times.
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
  """The median, over turns, of the times of one function over another's."""
  return statistics.median(a / b for a, b in zip(over, under, strict=True))
