"""When a run is started again, against slices that follow a script."""

import types

import pytest

from launch import failures, run_outcome
from launch.errors import CommandFailed, LaunchError
from launch.ledger import Run
from launch.run_outcome import RunOutcome
from launch.states import State
from launch.supervisor import RetryPolicy, Supervisor


class Script:
  """Hosts and slices in one. At each attempt it ends as the script says.

  Args:
    ends: of each attempt its statuses by worker, and the step it came to.
    refusals: kinds of failure, of each attempt to create.
  """

  def __init__(self, ends, refusals=(), workers=1):
    self.ends, self.refusals = list(ends), list(refusals)
    self.slices, self.calls, self.waits = self, [], []
    request = types.SimpleNamespace(hosts=workers)
    run = Run("run", [], "/tmp/x")
    self.entry = types.SimpleNamespace(name="a", request=request, run=run)
    self.there = True

  def poll(self):
    statuses, step = self.ends[0]
    if statuses == "gone":
      self.there = False
      return {}
    return {
      (0, i): {"state": "ended", "status": status, "step": step}
      for i, status in enumerate(statuses)
    }

  def log(self, offset, slice=0, worker=0):
    return "", offset

  def state(self):
    return State.READY if self.there else State.ABSENT

  def create(self):
    self.calls.append("create")
    if self.refusals:
      raise CommandFailed(self.refusals.pop(0), "refused.")
    self.there = True

  def delete(self):
    self.calls.append("delete")
    self.there = False

  def set_up(self):
    self.calls.append("set up")

  def start(self, why):
    self.calls.append("start")
    self.ends.pop(0)

  def stop(self, kill=False):
    self.calls.append("kill" if kill else "stop")

  def watch(self, **policy):
    policy = RetryPolicy(poll=0, **{"backoff": 1, **policy})
    quiet = lambda text: None
    return Supervisor(
      self, policy, quiet, quiet, sleep=self.waits.append
    ).watch()


DONE = ([0], 9)


@pytest.mark.parametrize("status", [134, 137, 143])
def test_machines_that_fail_are_tried_a_few_times(status):
  script = Script([([status], 1)] * 9)
  assert script.watch(retries=3) == 1
  assert script.calls.count("start") == 3


def test_progress_gives_new_tries():
  script = Script([([137], step) for step in range(8)] + [DONE])
  assert script.watch(retries=1) == 0
  stuck = Script([([137], 0), ([137], 1), ([137], 1), ([137], 1), DONE])
  assert stuck.watch(retries=1) == 1


def test_preemptions_have_no_limit():
  script = Script([([42], 1)] * 30 + [DONE])
  assert script.watch(retries=1) == 0
  assert "create" not in script.calls  # the slices were still there


def test_slices_that_are_gone_are_made_again_without_a_limit():
  script = Script([("gone", None)] * 30 + [DONE])
  assert script.watch(retries=1) == 0
  assert script.calls[:3] == ["create", "set up", "start"]
  assert script.calls.count("create") == 30


@pytest.mark.parametrize("kind", [failures.CAPACITY, failures.NAME_TAKEN])
def test_capacity_is_waited_for_without_a_limit(kind):
  script = Script([("gone", None), DONE], refusals=[kind] * 20)
  assert script.watch(retries=1) == 0
  assert script.calls.count("create") == 21


@pytest.mark.parametrize("kind", [failures.QUOTA, failures.OTHER])
def test_other_refusals_end_it_after_a_few_tries(kind):
  script = Script([("gone", None), DONE], refusals=[kind] * 20)
  assert script.watch(retries=2) == 1
  assert script.calls.count("create") == 3


@pytest.mark.parametrize("kind", [failures.LOGIN, failures.PERMISSION])
def test_what_only_a_person_can_solve_is_left_to_one(kind):
  with pytest.raises(LaunchError, match="refused"):
    Script([("gone", None), DONE], refusals=[kind]).watch()


def test_waits_double_until_there_is_progress_and_are_spread():
  script = Script([([42], 5)] * 6 + [([42], 6), DONE])
  assert script.watch() == 0
  waits = [wait for wait in script.waits if wait]
  for i, wait in enumerate(waits[:6]):
    assert 0.5 * 2**i <= wait <= 1.5 * 2**i
  assert waits[6] <= 1.5  # a step was gained
  others = Script([([42], 5)] * 6 + [([42], 6), DONE])
  others.watch()
  assert [wait for wait in others.waits if wait] != waits


def test_a_network_of_our_own_that_fails_ends_nothing():
  script = Script([("gone", None)] * 2 + [DONE])
  states = [
    CommandFailed(failures.OTHER, "no route."),
    State.READY,
    State.ABSENT,
  ]

  def state():
    found = states.pop(0) if states else State.READY
    if isinstance(found, CommandFailed):
      raise found
    return found

  script.state = state
  assert script.watch(retries=1) == 0
  assert script.calls.count("create") <= 1


def test_no_wait_is_endless():
  script = Script([([42], 5)] * 30 + [DONE])
  script.watch(longest=7)
  assert max(script.waits) <= 1.5 * 7


def ended(*statuses, **more):
  return {
    (0, i): {"state": "ended", "status": status, **more}
    for i, status in enumerate(statuses)
  }


@pytest.mark.parametrize(
  "said, expected",
  [
    (ended(0, 0), RunOutcome.DONE),
    (ended(42, 42), RunOutcome.PREEMPTED),
    (ended(0, 42), RunOutcome.PREEMPTED),
    (ended(42, 134), RunOutcome.PREEMPTED),
    (ended(134, 137), RunOutcome.BROKEN),
    (ended(0, 143), RunOutcome.BROKEN),
    # One has a bug; JAX aborts the other.
    (ended(1, 134), RunOutcome.FAILED),
    (ended(42, 1), RunOutcome.FAILED),
    (ended(139, 134), RunOutcome.FAILED),
    (ended(2, 2), RunOutcome.FAILED),
    (ended(130, 134), RunOutcome.STOPPED),
    (ended(42, 42, stopped=True), RunOutcome.STOPPED),
    (ended(0, 0, stopped=True), RunOutcome.DONE),
    (ended(1, 1, stopped=True), RunOutcome.FAILED),
    (ended(0), RunOutcome.SILENT),
    ({}, RunOutcome.SILENT),
    ({**ended(0), (0, 1): {"state": "running"}}, RunOutcome.RUNNING),
    ({**ended(1), (0, 1): {"state": "running"}}, RunOutcome.ENDING),
    ({**ended(137), (0, 1): {"state": "running"}}, RunOutcome.ENDING),
    ({**ended(137), (0, 1): {"state": "lost"}}, RunOutcome.BROKEN),
    ({**ended(0), (0, 1): {"state": "lost"}}, RunOutcome.BROKEN),
    ({(0, i): {"state": "absent"} for i in range(2)}, RunOutcome.BROKEN),
    ({(0, i): {"state": "running"} for i in range(2)}, RunOutcome.RUNNING),
  ],
)
def test_the_worst_that_a_worker_says_counts(said, expected):
  assert run_outcome.from_workers(said, 2) is expected


def test_workers_that_do_not_follow_one_that_ended_are_ended():
  script = Script([([137], 1)], workers=2)
  polls = []

  def poll():
    polls.append(1)
    rest = "running" if len(polls) < 6 else "lost"
    return {**ended(1), (0, 1): {"state": rest}}

  script.poll = poll
  assert script.watch(ending=3) == 1
  assert "kill" in script.calls
