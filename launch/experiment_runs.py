"""Divides the runs of an experiment among several slices.

Slice i of n gets `--shard=i/n`: each gets about the same work, and no run is
done twice. An experiment skips complete runs, so the same command resumes
where it was stopped. Each slice runs a program of its own.
"""

import threading
import time
from collections.abc import Callable, Sequence

from launch.errors import LaunchError
from launch.hosts import Hosts

_WORST_LAST = (0, 42, 1)  # exit statuses


class WatchCancelled(Exception):
  """Raised in a watcher when the whole watch is being stopped."""


class ParallelWatch:
  """Watches several slices at once, each in its own thread."""

  def __init__(self):
    self._cancelled = threading.Event()
    self._statuses: list[int] = []
    self._raised: list[Exception] = []

  def sleep(self, seconds: float) -> None:
    """Sleeps; raises WatchCancelled once the watch is being stopped."""
    if self._cancelled.wait(seconds):
      raise WatchCancelled

  def run(self, watchers: Sequence[Callable[[], int]]) -> int:
    """Runs all watchers in parallel and returns the worst exit status.

    If this is interrupted, all watchers end before it raises, so that none
    recreates what the caller deletes. Watchers must wait with `sleep`.

    Raises:
      Exception: the first that a watcher raised, after all have ended.
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
    except Exception as error:  # raised when all have ended
      self._raised.append(error)


def shard_argv(argv: Sequence[str], index: int, count: int) -> list[str]:
  """Returns the command line for slice `index`, from 0, of `count` slices."""
  chosen = [word for word in argv if word.startswith(("--only", "--shard"))]
  if chosen:
    raise LaunchError(
      f"{chosen[0]} selects runs, which a sweep does by itself; leave it out."
    )
  return [*argv, f"--shard={index + 1}/{count}"]


def check_slices(all_hosts: Sequence[Hosts]) -> None:
  """Raises LaunchError unless each name is given once and is one slice."""
  names = [hosts.entry.name for hosts in all_hosts]
  if len(set(names)) < len(names):
    raise LaunchError(f"--on={','.join(names)} names a slice twice.")
  for hosts in all_hosts:
    if hosts.entry.request.slices > 1:
      raise LaunchError(
        f"{hosts.entry.name} is {hosts.entry.request.slices} slices that form"
        " one program; for a sweep, create each slice under a name of its own."
      )
