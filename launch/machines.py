"""Carries out the verbs on slices that are reached by ssh."""

import functools

from launch import delete_on_exit, supervisor
from launch.command import Shell
from launch.errors import CommandFailed, LaunchError
from launch.failures import NOTHING_CREATED
from launch.hosts import Hosts
from launch.ledger import Entry, Ledger, Run
from launch.supervisor import RetryPolicy, Supervisor


class Machines:
  """The slices of one name: TPU VMs or an instance group.

  Attributes:
    hosts: its workers.
  """

  def __init__(self, entry: Entry, ledger: Ledger, shell: Shell, say):
    self.hosts = Hosts(entry, ledger, shell)
    self._entry, self._ledger, self._shell = entry, ledger, shell
    self._say = say

  def create(self, poll: float) -> None:
    """Creates the slices and waits until they are ready."""
    slices = self.hosts.slices
    try:
      slices.create()
    except CommandFailed as failure:
      if failure.kind in NOTHING_CREATED:
        self._ledger.remove(self._entry.name)
      raise
    try:
      supervisor.wait_until_ready(slices, self._say, poll)
    except BaseException:
      name = self._entry.name
      self._say(
        f"{name} is still requested: `python -m launch status {name}` shows"
        f" it, and `python -m launch delete {name}` cancels it"
      )
      raise

  def set_up(self, revision: str | None, script: str | None) -> None:
    """Copies the code to all workers, installs its requirements, and so on."""
    self.hosts.pack(revision, script)
    self.hosts.set_up()
    code = self._entry.code
    dirty = ", with uncommitted changes" if code["dirty"] else ""
    self._say(f"{self._entry.name} has {code['commit'][:12]}{dirty}")
    if self._entry.script is not None:
      self._say(f"{self._entry.script} has run on every machine")

  def start(self, run: Run) -> None:
    """Starts a run on all workers, or resumes it if it is the same run.

    Raises:
      Busy: another run is running; it stays the one that is watched.
    """
    before = self._entry.run
    if before is not None and before.id == run.id:
      run.attempts = list(before.attempts)
    self._entry.run = run
    try:
      self.hosts.start("run")
    except LaunchError:
      if before is not None:
        self._entry.run = before
        self._ledger.write(self._entry)
      raise

  def watch(self, options) -> int:
    """Follows the run to its end and returns its exit status."""
    self._need_run()
    if self._shell.dry:
      return dry_run_watch(self.hosts, options.delete_when_done)
    watch = make_supervisor(self.hosts, options, self._say, _print).watch
    if not options.delete_when_done:
      return watch()
    with delete_on_exit.delete_after(
      [self.hosts], self._ledger.remove, self._say, options.poll
    ):
      return watch()

  def status(self) -> None:
    """Prints the state of the slices and of each worker."""
    self._say(f"{self._entry.name}: {self.hosts.slices.state().value}")
    if self._entry.run is None:
      self._say("no run yet")
      return
    said = self.hosts.poll()
    for slice, worker in sorted(said):
      self._say(_line(slice, worker, said[slice, worker]))
    missing = self._entry.request.hosts - len(said)
    if missing:
      self._say(f"{missing} of {self._entry.request.hosts} do not answer")

  def logs(self, slice: int, worker: int) -> None:
    """Prints the output of one worker."""
    self._need_run()
    slices = self._entry.request.slices
    if not 0 <= slice < slices:
      raise LaunchError(
        f"--slice={slice}: {self._entry.name} has {slices} slices, counted"
        " from 0."
      )
    text, offset = self.hosts.log(0, slice, worker)
    while text:
      _print(text)
      text, offset = self.hosts.log(offset, slice, worker)

  def stop(self) -> None:
    """Asks the run to save a checkpoint and exit."""
    self._need_run()
    self.hosts.stop()
    self._say(f"{self._entry.run.id} was asked to save a checkpoint and exit")

  def delete(self) -> None:
    """Deletes the slices."""
    self.hosts.slices.delete()
    self._ledger.remove(self._entry.name)
    self._say(f"{self._entry.name} is deleted")

  def _need_run(self) -> None:
    if self._entry.run is None:
      name = self._entry.name
      raise LaunchError(
        f"nothing was run on {name} yet; start with `python -m launch run"
        f" --on={name} EXPERIMENT --workdir=…`."
      )


def make_supervisor(hosts: Hosts, options, say, stream, **more) -> Supervisor:
  """Returns a supervisor with the retry policy of the command line."""
  policy = RetryPolicy(
    poll=options.poll, backoff=options.backoff, retries=options.retries
  )
  return Supervisor(hosts, policy, say, stream, **more)


def dry_run_watch(hosts: Hosts, delete: bool) -> int:
  """Prints the commands of a watch: a check, a preemption and the end."""
  hosts.poll()
  hosts.log(0)
  print("# after a preemption")
  hosts.slices.state()
  hosts.slices.delete()
  hosts.slices.create()
  hosts.slices.state()
  hosts.set_up()
  hosts.start("preempted")
  if delete:
    print("# at the end")
    hosts.slices.delete()
  return 0


def _line(slice: int, worker: int, said: dict) -> str:
  words = [f"slice {slice} worker {worker}: {said['state']}"]
  if said["state"] == "ended":
    words.append(f"status {said['status']}")
  known = [key for key in ("step", "attempt") if said.get(key) is not None]
  words += [f"{key} {said[key]}" for key in known]
  return ", ".join(words)


_print = functools.partial(print, end="", flush=True)
