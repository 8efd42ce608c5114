"""Deletes what costs money when its watcher ends, however that ends."""

import contextlib
import signal
import sys
import time
from collections.abc import Callable

from launch.errors import LaunchError
from launch.hosts import Hosts
from launch.states import State

CHECKPOINT = 90.0  # seconds that an interrupted run has for its last one
_TRIES = 5  # what is just being made can not be deleted for a while


class Terminated(BaseException):
  """SIGTERM came; like KeyboardInterrupt, nothing but the end catches it."""


@contextlib.contextmanager
def raise_on_signals():
  """While it lasts, SIGTERM and SIGINT are exceptions.

  SIGINT too has to be made one: to what a shell starts in the background, or
  `nohup` in a script, it means nothing.
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
  """Around a watch: deletes slices at its end, good or bad.

  If the watch is interrupted, the runs first get the time for a checkpoint.
  Nothing interrupts the deletion.

  Args:
    pending: what to delete; looked at when the watch ends.
    forget: called with each name that is deleted.
    poll: seconds between two checks whether a run has ended.
  """
  try:
    yield
  except (KeyboardInterrupt, Terminated):
    _hold_signals()
    say("interrupted: asking for checkpoints before the deletion")
    with contextlib.suppress(LaunchError):
      _leave_checkpoints(pending, poll)
    raise
  finally:
    _hold_signals()
    for hosts in pending:
      delete(hosts, forget, say, poll)


def delete(hosts: Hosts, forget, say, poll: float) -> None:
  """Deletes slices and makes sure of it; says so loudly if it can not."""
  name, reason = hosts.entry.name, "it is there still."
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
    f"error: {name} may be running still, and cost money: {reason} Try `python"
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
