"""Deletes paid machines when a watch ends, however it ends."""

import contextlib
import signal
import sys
import time
from collections.abc import Callable

from launch.errors import LaunchError
from launch.hosts import Hosts
from launch.states import State

CHECKPOINT = (
  90.0  # seconds that an interrupted run has to save its last checkpoint
)
_TRIES = 5  # a slice that is being created cannot be deleted for a while


class Terminated(BaseException):
  """SIGTERM was received; like KeyboardInterrupt, only `main` handles it."""


@contextlib.contextmanager
def raise_on_signals():
  """Turns SIGTERM and SIGINT into exceptions inside the context.

  SIGINT needs a handler too, because a shell starts background jobs and
  scripts under `nohup` with SIGINT ignored.
  """

  def terminate(*_):
    raise Terminated

  before = [signal.signal(signal.SIGTERM, terminate)]
  before.append(signal.signal(signal.SIGINT, signal.default_int_handler))
  try:
    yield
  finally:
    signal.signal(signal.SIGTERM, before[0])
    signal.signal(signal.SIGINT, before[1])


@contextlib.contextmanager
def delete_after(
  pending: list[Hosts],
  forget: Callable[[str], None],
  say: Callable[[str], None],
  poll: float,
):
  """Deletes slices when the context ends, normally or by an error.

  If the watch is interrupted, the runs first get time to save a checkpoint.
  Nothing interrupts the deletion.

  Args:
    pending: the slices to delete, read when the watch ends.
    forget: called with the name of each slice that was deleted.
    poll: seconds between two checks of whether a run has ended.
  """
  try:
    yield
  except (KeyboardInterrupt, Terminated):
    _hold_signals()
    say("interrupted: asking for checkpoints before deleting")
    with contextlib.suppress(LaunchError):
      _leave_checkpoints(pending, poll)
    raise
  finally:
    _hold_signals()
    for hosts in pending:
      delete(hosts, forget, say, poll)


def delete(hosts: Hosts, forget, say, poll: float) -> None:
  """Deletes slices and verifies it; prints an error if that fails."""
  name, reason = hosts.entry.name, "it still exists."
  say(f"deleting {name}")
  for _ in range(_TRIES):
    try:
      hosts.slices.delete()
      if hosts.slices.state() in (State.ABSENT, State.DELETING):
        forget(name)
        say(f"{name} is deleted")
        return
    except LaunchError as error:
      reason = str(error)
    time.sleep(poll)
  print(
    f"error: {name} may still run and cost money: {reason} Try `python"
    f" -m launch delete {name}`.",
    file=sys.stderr,
  )


def _hold_signals() -> None:
  for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN)


def _leave_checkpoints(pending: list[Hosts], poll: float) -> None:
  for hosts in pending:
    hosts.stop()
  end = time.monotonic() + CHECKPOINT
  while time.monotonic() < end:
    said = [one for hosts in pending for one in hosts.poll().values()]
    if all(one["state"] != "running" for one in said):
      return
    time.sleep(poll)
