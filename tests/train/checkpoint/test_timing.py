"""Checkpoints are due after buckets or after a time, in all processes alike."""

import itertools

import pytest

from jaxsae import pod
from jaxsae.train.checkpoint import timing
from jaxsae.train.checkpoint.timing import CheckpointTiming
from jaxsae.train.config.duration import Duration


class Clock:
  """Stands in for the module `time`."""

  def __init__(self):
    self.now = 0.0

  def monotonic(self):
    return self.now


@pytest.fixture
def clock(monkeypatch):
  made = Clock()
  monkeypatch.setattr(timing, "time", made)
  return made


@pytest.fixture
def asked(monkeypatch):
  """Counts how often the leader is asked."""
  made, on_leader = [], pod.on_leader

  def count(act):
    made.append(act)
    return on_leader(act)

  monkeypatch.setattr(pod, "on_leader", count)
  return made


def test_every_so_many_buckets_nobody_is_asked(asked):
  due = CheckpointTiming(3, 4)
  assert [step for step in range(5, 13) if due.is_due(step)] == [6, 9, 12]
  assert not asked


@pytest.mark.parametrize("seconds", [0.01, 1.0, 7.0, 100.0])
def test_checkpoints_are_as_far_apart_as_asked_for(clock, asked, seconds):
  """Within a tenth, or a bucket, and for a few questions each."""
  due, saved, every = CheckpointTiming(Duration(60, "1min"), 10), [0.0], 60
  clock.now = start = 90.0 * (seconds < 60)  # compiling takes its time
  for step in range(11, 11 + int(1000 / seconds)):
    clock.now += seconds
    if due.is_due(step):
      saved.append(clock.now)
  gaps = [b - a for a, b in itertools.pairwise(saved)]
  assert len(saved) >= (1000 - start) / max(every, seconds) / 1.5
  assert all(every <= gap for gap in gaps)
  assert all(gap <= every + max(seconds, 1) for gap in gaps[1:])
  assert len(asked) <= 12 * len(saved) + 5


def test_the_leader_decides_for_all(clock, monkeypatch):
  """A process whose clock is another saves at the same steps."""
  every = Duration(60, "1min")
  leader, other, answers = CheckpointTiming(every, 0), None, []
  on_leader = pod.on_leader
  other = CheckpointTiming(every, 0)
  for step in range(1, 200):
    clock.now += 2.5
    with monkeypatch.context() as patch:
      patch.setattr(pod, "on_leader", lambda act: note(answers, on_leader(act)))
      is_due = leader.is_due(step)
    with monkeypatch.context() as patch:
      clock.now += 1e6
      patch.setattr(pod, "on_leader", lambda act: answers.pop())
      assert other.is_due(step) == is_due
      clock.now -= 1e6
    assert not answers  # both asked, or neither


def note(answers, value):
  answers.append(value)
  return value
