"""How long the devices had nothing to do."""

import collections
import time
from concurrent import futures
from typing import Any

import jax


class IdleTimer:
  """Follows steps from a thread of its own, and says how idle devices were.

  A step could begin when it was handed over and its input had arrived; it is
  over when its output is there. The devices were idle before a step for

      max(0, when it could begin - when the step before was over)

  and `idle` is the sum of that over the time it is asked for. What happens
  inside a step, communication included, counts as work; so does the
  microsecond or so in which an idle device notices that it has been given
  some. Only a thread that waits for nothing else sees when a step is over
  without holding up the loop.
  """

  def __init__(self):
    self._thread = futures.ThreadPoolExecutor(1, "idle_timer")
    self._steps = collections.deque()  # (number, handed over, input, output)
    self._since: float | None = None  # the end of the last step in a share
    self._over: float | None = None  # the end of the last step looked at

  def close(self) -> None:
    """Ends the thread, as soon as the step at hand is over."""
    self._thread.shutdown(wait=True, cancel_futures=True)

  def before_step(self, step: int, inputs: Any) -> None:
    """Notes that a step is handed over now; returns at once.

    Args:
      step: its number; they ascend.
      inputs: arrays it has to wait for, which it leaves intact.
    """
    handed_over = time.perf_counter()
    arrived = self._thread.submit(_when_there, inputs)
    self._steps.append((step, handed_over, arrived))

  def after_step(self, outputs: Any) -> None:
    """Follows that step until its outputs are there; returns at once."""
    over = self._thread.submit(_when_there, outputs)
    self._steps[-1] += (over,)

  def idle(self, step: int) -> float:
    """The idle share of the time from the last call's step to this one's end.

    For the first call, from when the first step was handed over. Waits until
    the step is over.
    """
    idle = 0.0
    while self._steps and self._steps[0][0] <= step:
      _, handed_over, arrived, over = self._steps.popleft()
      idle += self._before(handed_over, arrived.result(), over.result())
    assert self._over is not None and self._since is not None  # some step is
    share = idle / (self._over - self._since)
    self._since = self._over
    return share

  def _before(self, handed_over, arrived, over) -> float:
    """Seconds for which the devices were idle before a step."""
    if self._over is None:
      self._since = self._over = handed_over
    idle = max(0.0, max(handed_over, arrived) - self._over)
    self._over = over
    return idle


def _when_there(arrays) -> float:
  """When arrays are there, or, if they are by now, now.

  The thread waits for one thing after the other: input that was there before
  the step before was over counts as there when that was.
  """
  jax.block_until_ready(arrays)
  return time.perf_counter()
