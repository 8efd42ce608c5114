"""Ends a run between two steps when it is asked to: by Ctrl-C, by SIGTERM.

A step's input is gone once the step is under way, so an exception in the
middle of the loop would leave nothing to save. A signal is a wish instead, and
the loop looks whether there is one after each step.

In a pod a preemption reaches some processes before others, and all must save
the same step. There JAX takes SIGTERM, which is also how Cloud TPU announces
maintenance, and tells all processes of one step that none has passed
(`reached_preemption_sync_point`). A Python handler would turn that off.
"""

import shlex
import signal
import sys
import time
from collections.abc import Callable

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxsae import pod

INTERRUPTED = 130  # exit status after Ctrl-C, as shells have it
PREEMPTED = 42  # "start me again", to what launched the run


class ShutdownSignal:
  """Knows whether the run is to end; as a context, while signals are wishes.

  A second signal is none: it does at once what it would have done without us;
  in a pod, from when all processes have heard of the first.

  Attributes:
    status: what to exit with, or None while nobody has asked.
  """

  def __init__(self):
    self.status: int | None = None
    self._asked_at: float | None = None
    self._together = jax.distributed.is_initialized()
    self._interrupted = False
    self._before: dict[int, Callable | int | None] = {}

  def __enter__(self):
    ours = [signal.SIGINT] + [signal.SIGTERM] * (not self._together)
    for number in ours:
      self._before[number] = signal.signal(number, self._note)
    return self

  def __exit__(self, *_):
    self._give_back()

  def asked(self, step: int) -> bool:
    """Whether to end after this step; all processes ask at every step."""
    listening = self._together and self.status is None
    if listening and multihost_utils.reached_preemption_sync_point(step):
      self._agree()
    return self.status is not None

  def seconds(self) -> float:
    """Since it was asked for; in a pod, since all had heard of it."""
    return time.monotonic() - self._asked_at

  def _note(self, number, _):
    self._give_back()
    print("\nstopping after this step …", file=sys.stderr, flush=True)
    if self._together:
      self._interrupted = True
      signal.raise_signal(signal.SIGTERM)  # JAX tells the others
    else:
      self._end(INTERRUPTED if number == signal.SIGINT else PREEMPTED)

  def _agree(self):
    """All exit alike: as after Ctrl-C, if that was pressed anywhere."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # the next one ends us
    some = multihost_utils.process_allgather(np.int32(self._interrupted))
    pod.tell("stopping, all processes after the same step …")
    self._end(INTERRUPTED if np.any(some) else PREEMPTED)

  def _end(self, status: int):
    self.status, self._asked_at = status, time.monotonic()

  def _give_back(self):
    while self._before:
      signal.signal(*self._before.popitem())


def resume_command(*more: str) -> str:
  """The command line that resumes this run, with further settings at its end.

  Of a repeated setting the last holds.
  """
  return shlex.join([sys.executable, *sys.argv, *more])
