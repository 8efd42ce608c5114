"""Workers of slices that are reached by ssh, and the run on them."""

import json
import pathlib
import time
from collections.abc import Callable

from launch import failures, source_archive, ssh_commands
from launch.command import CommandResult, Shell
from launch.errors import Busy, CommandFailed, LaunchError
from launch.ledger import Entry, Ledger
from launch.mig import Mig
from launch.tpu_vm import TpuVm

_SCRIPTS = pathlib.Path(__file__).parent / "host"
_PAUSES = (1, 4, 16)  # seconds before each retry of a command by ssh


class Hosts:
  """All workers of all slices of one name.

  Attributes:
    entry: its entry in the ledger.
    slices: the service they come from: `TpuVm` or `Mig`.
  """

  def __init__(self, entry: Entry, ledger: Ledger, shell: Shell):
    kind = {"tpu-vm": TpuVm, "mig": Mig}[entry.request.backend]
    self.entry, self._ledger = entry, ledger
    self.slices, self._shell = kind(entry.request, shell), shell

  def pack(self, revision: str | None) -> None:
    """Archives the code that `set_up` copies, and records its version."""
    folder = self._ledger.folder(self.entry.name)
    self.entry.code = source_archive.pack(self._shell, folder, revision)
    self._ledger.write(self.entry)

  def set_up(self) -> None:
    """Sets up all workers with the archived code and its requirements.

    Raises:
      LaunchError: no code was archived, or a worker could not be set up.
    """
    if self.entry.code is None and not self._shell.dry:
      raise LaunchError(
        f"{self.entry.name} has no code yet; run `python -m launch setup"
        f" {self.entry.name}`."
      )
    self._run_on_all(ssh_commands.make_folder())
    scripts = [_SCRIPTS / "setup_host.sh", _SCRIPTS / "host.py"]
    folder = self._ledger.folder(self.entry.name)
    files = [folder / source_archive.TAR, *scripts]
    _retry_ssh(
      lambda: self.slices.copy(list(map(str, files)), ssh_commands.FOLDER)
    )
    self._run_on_all(ssh_commands.set_up())

  def start(self, why: str) -> None:
    """Starts the run on all workers, which form one program.

    Args:
      why: the reason, recorded in the ledger.

    Raises:
      Busy: another run is under way.
      LaunchError: a worker cannot start it.
    """
    run = self.entry.run
    number = run.attempt(why)
    self._ledger.write(self.entry)
    command = ssh_commands.start(run.id, number, run.workdir, run.env, run.argv)
    said = self._run_on_all(command, expect=self.entry.request.slice.hosts)
    for slice, worker, answer in said:
      where = f"slice {slice} worker {worker}"
      if "busy" in answer:
        raise Busy(
          f"{answer['busy']} already runs on {where}; `python -m launch stop"
          f" {self.entry.name}` ends it, and `watch` follows it."
        )
      if "failed" in answer:
        raise LaunchError(f"{where} could not start: {answer['failed']}")

  def poll(self) -> dict[tuple[int, int], dict]:
    """Returns the reply of each (slice, worker) that answers."""
    done = self.slices.run_on_all(
      ssh_commands.poll(self.entry.run.id), '{"worker": 0, "state": "running"}'
    )
    return {(s, worker): said for s, worker, said in _answers(done)}

  def log(self, offset: int, slice: int = 0, worker: int = 0):
    """Returns a worker's log from a byte offset on, and the next offset."""
    done = self.slices.run_on(
      slice, worker, ssh_commands.log(self.entry.run.id, worker, offset)
    )
    for _, _, said in _answers([done]):
      return said["text"], said["offset"]
    return "", offset

  def stop(self, kill: bool = False) -> None:
    """Asks all workers to save a checkpoint and exit, or kills them."""
    self.slices.run_on_all(ssh_commands.stop(self.entry.run.id, kill))

  def _run_on_all(self, command: str, expect: int = 0):
    """Returns the replies to a command that must succeed on all workers."""
    return _retry_ssh(lambda: self._once(command, expect))

  def _once(self, command: str, expect: int) -> list[tuple[int, int, dict]]:
    done = self.slices.run_on_all(command)
    said = _answers(done)
    for slice in done:
      refused = any("busy" in answer for _, _, answer in said)
      if slice.status and not refused:
        raise failures.from_worker(self.entry.name, slice.err, slice.status)
    if len(said) < expect * len(done) and not self._shell.dry:
      kind = failures.UNREACHABLE
      raise CommandFailed(
        kind, f"only {len(said)} workers answered; try again."
      )
    return said


def _answers(done: list[CommandResult]) -> list[tuple[int, int, dict]]:
  """Returns the slice, the worker and the reply of each that answered."""
  found = []
  for slice, one in enumerate(done):
    for line in one.out.splitlines():
      said = _json(line) if line.startswith('{"worker"') else None
      if said is not None:
        found.append((slice, said["worker"], said))
  return found


def _json(line: str) -> dict | None:
  """Parses a line; None if the output of two workers is mixed in it."""
  try:
    return json.loads(line)
  except ValueError:
    return None


def _retry_ssh(act: Callable):
  """Returns what `act` returns, retrying while a worker is unreachable."""
  for pause in _PAUSES:
    try:
      return act()
    except CommandFailed as failure:
      if failure.kind != failures.UNREACHABLE:
        raise
    time.sleep(pause)
  return act()
