"""Watches a run to its end and restarts it where that helps.

  preempted          recreate if necessary, set up, restart; without limit
  broken, silent     the same, a few times; progress resets the count
  failed             ends, because it would fail again
  done, stopped      ends

Each restart is preceded by a wait, which doubles while no step is gained and is
spread at random, so that many runs do not restart at once.
"""

import dataclasses
import random
import time
from collections.abc import Callable

from launch import failures, run_outcome
from launch.errors import CommandFailed, LaunchError
from launch.hosts import Hosts
from launch.run_outcome import RunOutcome
from launch.states import State

_RESTARTED = {RunOutcome.PREEMPTED, RunOutcome.BROKEN, RunOutcome.SILENT}
_EXIT = {RunOutcome.DONE: 0, RunOutcome.STOPPED: 42, RunOutcome.FAILED: 1}
_LOG_TAIL = 4000  # letters of a failed worker's log


@dataclasses.dataclass(frozen=True)
class RetryPolicy:
  """Intervals and limits for checks and restarts.

  Attributes:
    poll: seconds between two checks.
    backoff: seconds before the first restart.
    longest: longest wait in seconds, before it is spread.
    retries: restarts without progress after failures of the machines.
    silences: checks without an answer after which slices that are reported
      ready are recreated.
    ending: checks after one worker ended during which the others may end too;
      JAX ends them within a minute.
  """

  poll: float = 30.0
  backoff: float = 15.0
  longest: float = 900.0
  retries: int = 3
  silences: int = 10
  ending: int = 10


class Supervisor:
  """Watches one run and restarts it.

  Args:
    hosts: workers of the run.
    policy: intervals and limits.
    say: receives messages for the user, line by line.
    stream: receives the output of worker 0.
    sleep: waits; may raise to end the watch.
  """

  def __init__(
    self,
    hosts: Hosts,
    policy: RetryPolicy,
    say: Callable[[str], None],
    stream: Callable[[str], None],
    sleep: Callable[[float], None] = time.sleep,
  ):
    self._hosts, self._policy = hosts, policy
    self._say, self._stream, self._sleep = say, stream, sleep
    self._offset = self._silent = self._ending = 0
    self._failures = self._starts_without_progress = 0
    self._step = self._step_before = -1
    self._recreate = self._needs_set_up = False
    self._unfit = False  # whether the last start found a machine unfit

  def watch(self) -> int:
    """Watches the run until it is over.

    Returns:
      An exit status: 0 done, 42 stopped on request, 1 failed or given up.

    Raises:
      LaunchError: a failure that only the user can fix.
    """
    while True:
      outcome = self._look()
      if outcome in _EXIT:
        return self._end(outcome)
      if outcome not in _RESTARTED:
        self._sleep(self._policy.poll)
      elif not self._restart(outcome):
        return 1

  def _look(self) -> RunOutcome:
    """Returns the outcome so far, one of `_RESTARTED` only if it is certain."""
    said = self._hosts.poll()
    outcome = run_outcome.from_workers(said, self._hosts.entry.request.hosts)
    steps = [one.get("step") for one in said.values()]
    self._step = max([self._step, *(s for s in steps if s is not None)])
    if (0, 0) in said:
      self._follow()
    if outcome is RunOutcome.SILENT:
      return self._check_silent_slices()
    self._silent = 0
    if outcome is RunOutcome.ENDING:
      return self._wait_for_others(said)
    self._ending = 0
    if outcome not in (RunOutcome.RUNNING, RunOutcome.DONE):
      self._show_faults(said)
    return outcome

  def _follow(self) -> None:
    """Passes on the new output of worker 0."""
    while True:
      text, offset = self._hosts.log(self._offset)
      self._offset = offset
      if not text:
        return
      self._stream(text)

  def _check_silent_slices(self) -> RunOutcome:
    """Finds out whether slices that do not answer are gone or made anew."""
    try:
      state = self._hosts.slices.state()
    except CommandFailed as failure:
      if failure.kind not in (failures.OTHER, failures.UNREACHABLE):
        raise
      self._say(f"the state of the slices is unknown: {failure}")
      return RunOutcome.RUNNING  # it may be our own network
    if state is not State.READY:
      self._say(f"{self._hosts.entry.name} is {state.value}")
      return RunOutcome.PREEMPTED
    self._silent += 1
    if self._silent < self._policy.silences:
      return RunOutcome.RUNNING
    self._say(f"{self._hosts.entry.name} is {state.value} and does not answer")
    self._silent, self._recreate = 0, True
    return RunOutcome.SILENT

  def _wait_for_others(self, said) -> RunOutcome:
    self._ending += 1
    if self._ending > self._policy.ending:
      self._say("some workers ended and others did not; ending those")
      self._hosts.stop(kill=True)
    return RunOutcome.ENDING

  def _show_faults(self, said) -> None:
    """Shows the end of the log of each failed worker except worker 0."""
    for (slice, worker), one in sorted(said.items()):
      if one["state"] == "ended" and one["status"] == 0:
        continue
      status = one["status"] if one["state"] == "ended" else one["state"]
      self._say(f"slice {slice} worker {worker}: {status}")
      if (slice, worker) != (0, 0) and status not in (0, run_outcome.PREEMPTED):
        text, _ = self._hosts.log(0, slice, worker)
        self._stream(text[-_LOG_TAIL:])

  def _end(self, outcome: RunOutcome) -> int:
    at = f" at step {self._step}" if self._step >= 0 else ""
    self._say(f"{self._hosts.entry.run.id} {outcome.value}{at}")
    if outcome is RunOutcome.FAILED:
      self._say("not restarted: the run would fail again")
    return _EXIT[outcome]

  def _restart(self, outcome: RunOutcome) -> bool:
    """Restarts the run; returns False if the retries are used up."""
    while self._may_try(outcome):
      self._wait()
      try:
        self._prepare_slices()
        self._hosts.start(outcome.value)
        self._say(f"{self._hosts.entry.run.id} restarted")
        self._unfit = False
        return True
      except CommandFailed as failure:
        outcome = self._cause(failure)
        self._say(str(failure))
    self._say(
      f"giving up after {self._policy.retries} restarts without progress;"
      f" `python -m launch watch {self._hosts.entry.name}` tries again"
    )
    return False

  def _may_try(self, outcome: RunOutcome) -> bool:
    """Counts a restart, unless preempted, and checks the limit."""
    if self._step > self._step_before:
      self._failures = self._starts_without_progress = 0
    self._step_before = self._step
    self._starts_without_progress += 1
    self._failures += outcome is not RunOutcome.PREEMPTED
    return self._failures <= self._policy.retries

  def _wait(self) -> None:
    doubled = self._policy.backoff * 2 ** min(
      self._starts_without_progress - 1, 20
    )
    wait = min(doubled, self._policy.longest) * random.uniform(0.5, 1.5)
    self._say(f"restarting in {wait:.0f} s")
    self._sleep(wait)

  def _cause(self, failure: CommandFailed) -> RunOutcome:
    """Returns the outcome of a failed start; raises what the user must fix."""
    if failure.kind == failures.UNFIT:
      # Set up again; if that does not help, other machines may be better.
      self._recreate, self._unfit, self._needs_set_up = self._unfit, True, True
      return RunOutcome.BROKEN
    if failure.kind in (failures.CAPACITY, failures.BUCKET):
      return RunOutcome.PREEMPTED  # waiting helps, and nothing else
    if failure.kind in (failures.QUOTA, failures.UNREACHABLE, failures.OTHER):
      return RunOutcome.BROKEN
    if failure.kind in (failures.NAME_TAKEN, failures.ABSENT):
      return RunOutcome.PREEMPTED  # it changed between two calls
    raise failure

  def _prepare_slices(self) -> None:
    """Makes the slices ready, with the same code as before."""
    slices, name = self._hosts.slices, self._hosts.entry.name
    state = slices.state()
    if state is State.READY and not (self._recreate or self._needs_set_up):
      self._hosts.stop(kill=True)  # a hung process would hold the TPU
      return
    if state is State.LOST or (state is State.READY and self._recreate):
      self._say(f"deleting {name}")
      slices.delete()
    while (state := slices.state()) is State.DELETING:
      self._sleep(self._policy.poll)
    self._recreate, self._needs_set_up = False, True
    created = state is State.ABSENT
    if created:
      self._say(f"creating {name} again")
      self._sleep(0)  # the last chance to cancel
      slices.create()
      self._offset = 0  # its log is a new one
    wait_until_ready(slices, self._say, self._policy.poll, self._sleep)
    if not created:
      self._hosts.stop(kill=True)  # a run that went on would be in the way
    self._hosts.set_up()
    self._needs_set_up = False


def wait_until_ready(slices, say, poll: float, sleep=time.sleep) -> None:
  """Waits until slices are ready and reports each change of their state.

  Raises:
    CommandFailed: the slices were lost meanwhile; its kind is "capacity".
    LaunchError: the slices were deleted.
  """
  before = State.CREATING
  while (state := slices.state()) is not State.READY:
    if state is State.LOST:
      raise CommandFailed(
        failures.CAPACITY, "the slices were lost before they were ready."
      )
    if state is State.ABSENT:
      raise LaunchError("the slices are gone; someone else deleted them.")
    if state is not before:
      say(state.value)
    before = state
    sleep(poll)
