"""Combines the states of a run's workers into one outcome.

Exit statuses: 0 done, 42 preempted, 134, 137 and 143 the machines' fault
(aborted for a lost process, killed, terminated), 130 ended by Ctrl-C. Anything
else is a fault of the run, which would happen again.
"""

import enum
from collections.abc import Mapping

PREEMPTED, INTERRUPTED = 42, 130
INFRASTRUCTURE = {134, 137, 143}


class RunOutcome(enum.Enum):
  """Outcome of a run, or its state while it lasts."""

  RUNNING = "running"
  ENDING = "ended on some workers"
  DONE = "done"
  STOPPED = "stopped"
  PREEMPTED = "preempted"
  BROKEN = "broken by its machines"
  FAILED = "failed"
  SILENT = "does not answer"


def from_workers(
  said: Mapping[tuple[int, int], dict], workers: int
) -> RunOutcome:
  """Combines what the workers report into the outcome of the run.

  When one process fails, the others are aborted: the fault of one explains the
  others, so the worst one counts.

  Args:
    said: the reply of each worker that answered; see `poll` in
      `launch/host/host.py`.
    workers: number of workers.
  """
  states = [one["state"] for one in said.values()]
  ended = [one["status"] for one in said.values() if one["state"] == "ended"]
  faults = {status for status in ended if status != 0}
  if faults - INFRASTRUCTURE - {PREEMPTED, INTERRUPTED}:
    return RunOutcome.FAILED if "running" not in states else RunOutcome.ENDING
  if len(said) < workers:
    return RunOutcome.SILENT
  if "running" in states:
    return (
      RunOutcome.ENDING if faults or "lost" in states else RunOutcome.RUNNING
    )
  if all(status == 0 for status in ended) and len(ended) == workers:
    return RunOutcome.DONE
  if any(one.get("stopped") for one in said.values()) or INTERRUPTED in faults:
    return RunOutcome.STOPPED
  return RunOutcome.PREEMPTED if PREEMPTED in faults else RunOutcome.BROKEN
