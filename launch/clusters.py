"""Carries out the verbs on a JobSet, which its cluster restarts by itself."""

import time

from launch.command import Shell
from launch.errors import LaunchError
from launch.jobset import JobSet
from launch.ledger import Entry, Ledger


class Cluster:
  """A JobSet on GKE. Its image holds the code, so there is no set-up."""

  def __init__(self, entry: Entry, ledger: Ledger, shell: Shell, say):
    self._entry, self._ledger, self._shell = entry, ledger, shell
    self._say, self._jobset = say, JobSet(entry.request, shell)

  def create(self, poll: float) -> None:
    """Connects kubectl to the cluster, which already has the nodes."""
    self._jobset.connect()

  def set_up(self, revision: str | None, script: str | None) -> None:
    """Raises LaunchError, because the image holds the code."""
    raise LaunchError(
      f"{self._entry.name} is a JobSet, and {self._entry.request.image} has its"
      " code; build and push that image again instead."
    )

  def start(self, run) -> None:
    """Submits a run to the cluster."""
    run.attempt("run")
    self._jobset.start(run)
    self._entry.run = run
    self._ledger.write(self._entry)

  def watch(self, options) -> int:
    """Follows the run to its end and returns its exit status."""
    try:
      return self._follow(options.poll)
    finally:
      if options.delete_when_done:
        self.delete()

  def status(self) -> None:
    """Prints the state of the JobSet and its number of restarts."""
    state, restarts = self._jobset.status()
    self._say(f"{self._entry.name}: {state}, {restarts} restarts")

  def logs(self, slice: int, worker: int) -> None:
    """Prints the output of one worker."""
    print(self._jobset.logs(slice, worker), end="", flush=True)

  def stop(self) -> None:
    """Stops the run by deleting the JobSet; its checkpoint stays."""
    self._jobset.delete()

  def delete(self) -> None:
    """Deletes the JobSet; the cluster keeps its nodes."""
    self._jobset.delete()
    self._ledger.remove(self._entry.name)
    self._say(f"{self._entry.name} is deleted")

  def _follow(self, poll: float) -> int:
    before, seen = None, 0
    while True:
      state = self._jobset.status()
      text = self._jobset.logs(0, 0)
      seen = seen if seen <= len(text) else 0  # it was restarted
      print(text[seen:], end="", flush=True)
      seen = len(text)
      if state != before:
        self.status()
      before = state
      if state[0] != "running" or self._shell.dry:
        return 1 if state[0] == "Failed" else 0
      time.sleep(poll)
