"""After which buckets of a run a checkpoint is saved."""

import time

from jaxsae import pod
from jaxsae.train.config.duration import Duration

# Of the buckets that fit into the time that is left, this share is trained on
# before the processes agree again: buckets may become slower.
_CAUTION = 0.9


class CheckpointTiming:
  """Says after which buckets a checkpoint is due.

  If that depends on time, the leader decides for all processes. Asking it makes
  them wait for the step under way, so it also says when to ask again: a few
  times for each checkpoint, however short the steps.

  Args:
    every: buckets, or the time, between two checkpoints.
    step: the number of buckets that are trained on.
  """

  def __init__(self, every: int | Duration, step: int):
    self._every = every
    self._saved_at, self._saved_step = time.monotonic(), step
    self._ask_at = step + 1

  def is_due(self, step: int) -> bool:
    """Returns whether one is due; all processes ask, after every bucket."""
    if isinstance(self._every, int):
      return step % self._every == 0
    if step < self._ask_at:
      return False
    is_due, wait = pod.on_leader(lambda: self._decide(step))
    if is_due:
      self._saved_at, self._saved_step = time.monotonic(), step
    self._ask_at = step + wait
    return is_due

  def _decide(self, step: int) -> tuple[bool, int]:
    """Returns whether one is due, and the buckets until the next question."""
    assert isinstance(self._every, Duration)
    passed = time.monotonic() - self._saved_at
    each = max(passed / (step - self._saved_step), 1e-6)  # seconds
    left = self._every.seconds - passed
    is_due = left <= 0
    wait = self._every.seconds if is_due else left
    return is_due, max(1, int(_CAUTION * wait / each))
