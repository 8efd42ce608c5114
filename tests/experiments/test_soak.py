"""The memory of a run does not grow; the soak detects one that leaks."""

import pytest

from experiments.soak import memory

pytestmark = pytest.mark.slow

LEAKING = (
  """
import numpy as np
from jaxsae.train.monitor import monitor
drain, kept = monitor.RunMonitor.drain, []
def leaking(*args, **more):
  kept.append(np.ones(50_000))  # 400 kB
  drain(*args, **more)
monitor.RunMonitor.drain = leaking
"""
  + memory.RUN
)


@pytest.fixture
def grown(config, replace, tmp_path):
  """grown(script): MB by which a run grows after its warm-up."""

  def by(script):
    run = replace(config, tokens=300 * 512, checkpoint_every=50)
    told = list(memory.sizes(run, tmp_path, every=50, script=script))
    assert len(told) >= 5
    return told[-1][1] - told[2][1]

  return by


def test_a_run_of_some_hundred_steps_does_not_grow(grown):
  assert grown(memory.RUN) < 15


def test_a_run_that_leaks_memory_grows(grown):
  assert grown(LEAKING) > 30
