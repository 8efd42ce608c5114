"""Ends a run between two steps after Ctrl-C or SIGTERM.

A step's input is gone once the step is under way, so an exception in the
middle of the loop would leave nothing to save. Instead a signal is recorded,
and the loop checks for it after each step.

In a pod a preemption reaches some processes before others, and all must save
the same step. There JAX handles SIGTERM, which is also how Cloud TPU announces
maintenance, and agrees with all processes on a step that none has passed
(`reached_preemption_sync_point`). A Python handler would disable that.
"""

import math
import shlex
import signal
import sys
import time
from collections.abc import Callable

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxsae import pod
from jaxsae.errors import RESTART

INTERRUPTED = 130  # exit status after Ctrl-C, as shells have it
PREEMPTED = RESTART  # to what launched the run


class ShutdownSignal:
  """A context that turns the first signal into a request to end the run.

  A second signal has its usual effect at once; in a pod, only after all
  processes have received the first.

  Attributes:
    status: the exit status, or None while no end was requested.
  """

  def __init__(self):
    self.status: int | None = None
    self._asked_at = math.nan  # no end was requested yet
    self._together = jax.distributed.is_initialized()
    self._interrupted = False
    self._before: dict[int, Callable | int | None] = {}

  def __enter__(self):
    ours = [signal.SIGINT] + [signal.SIGTERM] * (not self._together)
    for number in ours:
      self._before[number] = signal.signal(number, self._note)
    return self

  def __exit__(self, *_):
    self._restore_handlers()

  def asked(self, step: int) -> bool:
    """Returns whether to end after this step; all processes must ask."""
    listening = self._together and self.status is None
    if listening and multihost_utils.reached_preemption_sync_point(step):
      self._agree()
    return self.status is not None

  def seconds(self) -> float:
    """Seconds since the request; in a pod, since all processes received it."""
    return time.monotonic() - self._asked_at

  def _note(self, number, _):
    self._restore_handlers()
    print("\nstopping after this step …", file=sys.stderr, flush=True)
    if self._together:
      self._interrupted = True
      signal.raise_signal(signal.SIGTERM)  # JAX tells the others
    else:
      self._end(INTERRUPTED if number == signal.SIGINT else PREEMPTED)

  def _agree(self):
    """Gives all processes one status: that of Ctrl-C, if any received it."""
    signal.signal(
      signal.SIGTERM, signal.SIG_DFL
    )  # the next one ends the process
    some = multihost_utils.process_allgather(np.int32(self._interrupted))
    pod.print_on_leader("stopping, all processes after the same step …")
    self._end(INTERRUPTED if np.any(some) else PREEMPTED)

  def _end(self, status: int):
    self.status, self._asked_at = status, time.monotonic()

  def _restore_handlers(self):
    while self._before:
      signal.signal(*self._before.popitem())


def resume_command(*more: str) -> str:
  """The command line that resumes this run, with more settings at its end.

  If a setting is repeated, the last one holds.
  """
  return shlex.join([sys.executable, *sys.argv, *more])
