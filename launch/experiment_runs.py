"""The runs of an experiment over several slices, each run taken once.

Slice i of n gets `--shard=i/n`: about the same work each, and no run twice. An
experiment skips what is complete, so the same command goes on where it was
stopped. Each slice runs a program of its own.
"""

import threading
import time
from collections.abc import Callable, Sequence

from launch.errors import LaunchError
from launch.hosts import Hosts

_WORST_LAST = (0, 42, 1)  # exit statuses


class WatchCancelled(Exception):
  """Tells a watcher that all is over."""


class ParallelWatch:
  """Watches several slices at once, each in a thread of its own."""

  def __init__(self):
    self._cancelled = threading.Event()
    self._statuses: list[int] = []
    self._raised: list[Exception] = []

  def sleep(self, seconds: float) -> None:
    """Waits; raises WatchCancelled once the others are being ended."""
    if self._cancelled.wait(seconds):
      raise WatchCancelled

  def run(self, watchers: Sequence[Callable[[], int]]) -> int:
    """Calls all of them, which wait with `sleep`; the worst exit status.

    When this is interrupted, all come to an end before it raises, so that
    none makes again what the caller deletes.

    Raises:
      Exception: the first that one raised, when all are over.
    """
    threads = [
      threading.Thread(target=self._follow, args=(watcher,))
      for watcher in watchers
    ]
    for thread in threads:
      thread.start()
    try:
      while any(thread.is_alive() for thread in threads):
        time.sleep(0.1)
    finally:
      self._cancelled.set()
      for thread in threads:
        thread.join()
    if self._raised:
      raise self._raised[0]
    return max(self._statuses, key=_WORST_LAST.index)

  def _follow(self, watcher: Callable[[], int]) -> None:
    try:
      self._statuses.append(watcher())
    except WatchCancelled:
      pass
    except Exception as error:  # raised when all are over
      self._raised.append(error)


def shard_argv(argv: Sequence[str], index: int, count: int) -> list[str]:
  """The experiment and its flags on slice `index`, from 0, of `count`."""
  chosen = [word for word in argv if word.startswith(("--only", "--shard"))]
  if chosen:
    raise LaunchError(
      f"{chosen[0]} chooses among the runs, and a sweep does that itself; leave"
      " it out."
    )
  return [*argv, f"--shard={index + 1}/{count}"]


def check_slices(all_hosts: Sequence[Hosts]) -> None:
  """Raises LaunchError where a name is not one slice of its own."""
  names = [hosts.entry.name for hosts in all_hosts]
  if len(set(names)) < len(names):
    raise LaunchError(f"--on={','.join(names)} names a slice twice.")
  for hosts in all_hosts:
    if hosts.entry.request.slices > 1:
      raise LaunchError(
        f"{hosts.entry.name} is {hosts.entry.request.slices} slices that form"
        " one program; for a sweep, create each slice under a name of its own."
      )
