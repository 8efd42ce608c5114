"""Idle time lies between the end of a step and the start of the next."""

import threading
import types

import pytest

from jaxsae.train.monitor import idle
from jaxsae.train.monitor.idle import IdleTimer


class Ready:
  """Stands for an array that is ready at a given time."""

  def __init__(self, now, at):
    self._now, self._at = now, at

  def block_until_ready(self):
    self._now[0] = max(self._now[0], self._at)
    return self


@pytest.fixture
def share(monkeypatch):
  """Returns idle shares of steps: (dispatched, input ready, done, asked)."""

  def of(*steps):
    now, begin, main = [0.0], [0.0], threading.current_thread()
    here = lambda: threading.current_thread() is main
    time = types.SimpleNamespace(
      perf_counter=lambda: begin[0] if here() else now[0]
    )
    monkeypatch.setattr(idle, "time", time)
    followed = IdleTimer()
    for number, (handed_over, arrived, over, _) in enumerate(steps, 1):
      begin[0] = handed_over
      followed.before_step(number, Ready(now, arrived))
      followed.after_step(Ready(now, over))
    # Asked later, as in the loop, it is of the steps asked for alone.
    asked = [number for number, step in enumerate(steps, 1) if step[3]]
    found = [followed.idle(number) for number in asked]
    followed.close()
    return found

  return of


def test_steps_without_a_gap_have_no_idle_time(share):
  assert share((0, 0, 2, 1), (1, 1, 4, 1), (3, 3, 6, 1)) == [0, 0, 0]


def test_the_gap_before_a_late_step_is_idle(share):
  # Over at 2, handed over at 5, over at 6: three of four seconds.
  assert share((0, 0, 2, 1), (5, 1, 6, 1)) == [0, 0.75]


def test_a_step_waits_for_its_input(share):
  assert share((0, 1, 2, 1), (1, 5, 6, 1)) == [0.5, 0.75]


def test_a_share_is_of_the_time_since_the_last(share):
  # Idle from 2 to 4 and from 6 to 7, asked at 2 and at 10.
  assert share((0, 0, 2, 1), (4, 4, 6, 0), (7, 7, 10, 1)) == [0, 3 / 8]


def test_a_failure_is_raised_and_the_thread_ends():
  class Broken:
    def block_until_ready(self):
      raise RuntimeError("the device is gone")

  followed = IdleTimer()
  followed.before_step(1, ())
  followed.after_step(Broken())
  with pytest.raises(RuntimeError, match="the device is gone"):
    followed.idle(1)
  followed.close()
  assert not [t for t in threading.enumerate() if "clock" in t.name]
