"""However often a run saves, no thread and no open file is left of it."""

import os
import sys
import threading

import jax
import jax.numpy as jnp
import pytest

from jaxsae.train.checkpoint.checkpoints import Checkpoints
from jaxsae.train.state import StackState, TrainState


def saved(checkpoints, numbers):
  for n in numbers:
    one = jnp.ones(8)
    stack = StackState(one, (), one, one, one)
    state = TrainState(jnp.array(n), jax.random.key(0), (stack,))
    checkpoints.save(state, {"next_batch": n})
  checkpoints.wait()


def held():
  """Threads, and open files where that can be told."""
  files = len(os.listdir("/proc/self/fd")) if sys.platform == "linux" else 0
  return threading.active_count(), files


@pytest.fixture
def checkpoints(tmp_path):
  checkpoints = Checkpoints(tmp_path / "checkpoints", keep=2)
  yield checkpoints
  checkpoints.close()


def test_saves_leave_nothing_behind(checkpoints):
  saved(checkpoints, range(1, 4))
  before = held()
  saved(checkpoints, range(4, 16))
  assert all(now - then < 6 for now, then in zip(held(), before, strict=True))


def test_a_save_that_nobody_asks_for_its_result_would(checkpoints, monkeypatch):
  wait = lambda self: self._orbax and self._orbax.wait()
  monkeypatch.setattr(Checkpoints, "wait", wait)
  saved(checkpoints, range(1, 4))
  before = held()
  saved(checkpoints, range(4, 16))
  assert held()[0] - before[0] >= 12
