"""A supervisor restarts runs on slices that follow a script."""

import types

import pytest

from launch import failures, run_outcome
from launch.errors import CommandFailed, LaunchError
from launch.ledger import Run
from launch.run_outcome import RunOutcome
from launch.states import State
from launch.supervisor import RetryPolicy, Supervisor


class Script:
  """Stands for hosts and slices; each attempt ends as the script says.

  Args:
    ends: of each attempt its statuses by worker, and the step it came to.
    refusals: kinds of failure, of each attempt to create.
    unfit: how many starts find that a machine lacks something.
  """

  def __init__(self, ends, refusals=(), workers=1, unfit=0):
    self.unfit = unfit
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
    if self.unfit:
      self.unfit -= 1
      raise failures.from_unfit([("no text", "slice 0 worker 0, host")])
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
def test_failing_machines_are_retried_a_few_times(status):
  script = Script([([status], 1)] * 9)
  assert script.watch(retries=3) == 1
  assert script.calls.count("start") == 3


def test_progress_resets_the_retries():
  script = Script([([137], step) for step in range(8)] + [DONE])
  assert script.watch(retries=1) == 0
  stuck = Script([([137], 0), ([137], 1), ([137], 1), ([137], 1), DONE])
  assert stuck.watch(retries=1) == 1


def test_preemptions_have_no_limit():
  script = Script([([42], 1)] * 30 + [DONE])
  assert script.watch(retries=1) == 0
  assert "create" not in script.calls  # the slices were still there


def test_slices_that_are_gone_are_recreated_without_a_limit():
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
def test_other_refusals_end_the_watch_after_a_few_retries(kind):
  script = Script([("gone", None), DONE], refusals=[kind] * 20)
  assert script.watch(retries=2) == 1
  assert script.calls.count("create") == 3


@pytest.mark.parametrize("kind", [failures.LOGIN, failures.PERMISSION])
def test_errors_that_only_the_user_can_fix_are_raised(kind):
  with pytest.raises(LaunchError, match="refused"):
    Script([("gone", None), DONE], refusals=[kind]).watch()


def test_a_machine_that_lacks_something_is_set_up_again_and_then_replaced():
  script = Script([([42], 1), DONE], unfit=2)
  assert script.watch(retries=2) == 0
  assert script.calls == [
    *("kill", "start"),
    *("kill", "set up", "start"),
    *("delete", "create", "set up", "start"),
  ]


def test_machines_that_always_lack_something_are_given_up():
  script = Script([("gone", None), DONE], unfit=99)
  assert script.watch(retries=3) == 1
  assert script.calls.count("create") == 3  # one for the loss, two more
  assert script.calls.count("start") == 4


def test_a_bucket_that_does_not_answer_is_waited_for():
  """The run ends with 42 then, on all hosts or on the one that noticed."""
  ends = [([42, 42], 3), ([42, 134], 3), ([0, 42], 3)] * 10
  script = Script([*ends, ([0, 0], 9)], workers=2)
  assert script.watch(retries=0) == 0
  assert "create" not in script.calls
  assert max(script.waits) <= 1.5 * RetryPolicy().longest
  assert sum(script.waits) > 10 * RetryPolicy().longest / 2


def test_waits_double_until_there_is_progress_and_are_randomised():
  script = Script([([42], 5)] * 6 + [([42], 6), DONE])
  assert script.watch() == 0
  waits = [wait for wait in script.waits if wait]
  for i, wait in enumerate(waits[:6]):
    assert 0.5 * 2**i <= wait <= 1.5 * 2**i
  assert waits[6] <= 1.5  # a step was gained
  others = Script([([42], 5)] * 6 + [([42], 6), DONE])
  others.watch()
  assert [wait for wait in others.waits if wait] != waits


def test_machines_that_their_service_makes_anew_are_waited_for():
  """An instance group does so by itself after a preemption."""
  script = Script([("gone", None), DONE])
  states = [State.CREATING] * 3
  script.state = lambda: states.pop() if states else State.READY
  assert script.watch(retries=0) == 0
  assert script.calls == ["kill", "set up", "start"]


def test_a_failure_of_our_own_network_ends_nothing():
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
def test_the_outcome_is_that_of_the_worst_worker(said, expected):
  assert run_outcome.from_workers(said, 2) is expected


def test_workers_that_outlive_one_that_ended_are_stopped():
  script = Script([([137], 1)], workers=2)
  polls = []

  def poll():
    polls.append(1)
    rest = "running" if len(polls) < 6 else "lost"
    return {**ended(1), (0, 1): {"state": rest}}

  script.poll = poll
  assert script.watch(ending=3) == 1
  assert "kill" in script.calls
