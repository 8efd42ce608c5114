"""Measures how long the devices had nothing to do."""

import collections
import time
from concurrent import futures
from typing import Any

import jax


class IdleTimer:
  """Follows steps from its own thread, and tells how idle the devices were.

  A step could begin once it was called and its input had arrived; it is over
  when its output is there. The devices were idle before a step for

      max(0, when it could begin - when the step before was over)

  and `idle` is the sum of that, as a share of the time that is asked about.
  What happens inside a step, communication included, counts as work; so does
  the microsecond or so that an idle device takes to notice new work. Only a
  thread that waits for nothing else sees when a step is over without holding
  up the loop.
  """

  def __init__(self):
    self._thread = futures.ThreadPoolExecutor(1, "idle_timer")
    self._steps = collections.deque()  # (number, called, input, output)
    self._since: float | None = None  # the end of the last step in a share
    self._over: float | None = None  # the end of the last step looked at

  def close(self) -> None:
    """Ends the thread as soon as the current step is over."""
    self._thread.shutdown(wait=True, cancel_futures=True)

  def before_step(self, step: int, inputs: Any) -> None:
    """Notes that a step is called now; returns at once.

    Args:
      step: the number of the step, higher than that of the last call.
      inputs: arrays that the step waits for and does not donate.
    """
    called = time.perf_counter()
    arrived = self._thread.submit(_time_when_ready, inputs)
    self._steps.append((step, called, arrived))

  def after_step(self, outputs: Any) -> None:
    """Follows that step until its outputs are ready; returns at once."""
    over = self._thread.submit(_time_when_ready, outputs)
    self._steps[-1] += (over,)

  def idle(self, step: int) -> float:
    """Returns the idle share of the time since the step of the last call.

    Waits until `step` is over, where that time ends. On the first call it
    starts when the first step was called.
    """
    idle = 0.0
    while self._steps and self._steps[0][0] <= step:
      _, called, arrived, over = self._steps.popleft()
      idle += self._before(called, arrived.result(), over.result())
    assert self._over is not None and self._since is not None  # some step is
    share = idle / (self._over - self._since)
    self._since = self._over
    return share

  def _before(self, called: float, arrived: float, over: float) -> float:
    """Returns the seconds for which the devices were idle before a step."""
    if self._over is None:
      self._since = self._over = called
    idle = max(0.0, max(called, arrived) - self._over)
    self._over = over
    return idle


def _time_when_ready(arrays: Any) -> float:
  """Waits for arrays, and returns the time.

  The thread waits for one thing after another: input that was ready before the
  previous step was over counts as ready at that moment.
  """
  jax.block_until_ready(arrays)
  return time.perf_counter()
