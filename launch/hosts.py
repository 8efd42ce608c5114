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

_HOST = pathlib.Path(__file__).parent / "host"
_HOST_FILES = ("setup_host.sh", "host.py", "prepare.py")
# Seconds before each retry of a command by ssh. It takes about a minute until a
# new machine knows our key.
_PAUSES = (2, 8, 20, 40)


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

  def pack(self, revision: str | None, script: str | None = None) -> None:
    """Archives the code that `set_up` copies, and records its version.

    Args:
      revision: a git revision; None for the files as they are now.
      script: the user's script; None to keep the one from before, if any.
    """
    folder = self._ledger.folder(self.entry.name)
    if script is not None:
      self.entry.script = source_archive.keep_script(
        self._shell, folder, script
      )
    self.entry.code = source_archive.pack(self._shell, folder, revision)
    self._ledger.write(self.entry)

  def set_up(self) -> None:
    """Sets up all workers: code, requirements, data disks, the user's script.

    Raises:
      LaunchError: no code was archived, or a worker could not be set up.
    """
    if self.entry.code is None and not self._shell.dry:
      raise LaunchError(
        f"{self.entry.name} has no code yet; run `python -m launch setup"
        f" {self.entry.name}`."
      )
    self._run_on_all(ssh_commands.make_folder())
    files = self._files()
    _retry_ssh(lambda: self.slices.copy(files, ssh_commands.FOLDER))
    self._run_on_all(ssh_commands.set_up())
    disks, script = self.slices.mounts(), self.entry.script
    if disks or script:
      self._require_fitness(ssh_commands.prepare(disks, script is not None))

  def start(self, why: str) -> None:
    """Checks all workers and starts the run on them, as one program.

    Args:
      why: the reason, recorded in the ledger.

    Raises:
      Busy: another run is under way.
      CommandFailed: a worker lacks something or cannot start the run (its kind
        is "unfit"), or the bucket does not answer ("bucket").
    """
    run, topology = self.entry.run, self.entry.request.slice
    self._require_fitness(
      ssh_commands.check(run, self.slices.mounts(), topology.chips_per_host)
    )
    number = run.attempt(why)
    self._ledger.write(self.entry)
    said = self._run_on_all(ssh_commands.start(run, number), topology.hosts)
    for slice, worker, answer in said:
      if "busy" in answer:
        raise Busy(
          f"{answer['busy']} already runs on slice {slice} worker {worker};"
          f" `python -m launch stop {self.entry.name}` ends it, and `watch`"
          " follows it."
        )
    self._raise_if_unfit(said, lambda answer: [answer.get("failed")])

  def _require_fitness(self, command: str) -> None:
    """Raises CommandFailed if a worker tells of a problem."""
    said = self._run_on_all(command, self.entry.request.slice.hosts)
    self._raise_if_unfit(
      said, lambda answer: [*answer["problems"], self._wrong_code(answer)]
    )
    for slice, worker, answer in said:
      if answer.get("silent"):
        machine = _machine(slice, worker, answer)
        raise failures.from_silent_bucket(answer["silent"], machine)

  def _raise_if_unfit(self, said, problems: Callable[[dict], list]) -> None:
    found = [
      (problem, _machine(slice, worker, answer))
      for slice, worker, answer in sorted(said, key=lambda one: one[:2])
      for problem in problems(answer)
      if problem
    ]
    if found:
      raise failures.from_unfit(found)

  def _wrong_code(self, answer: dict) -> str | None:
    """Returns a problem if a worker has other code than was copied last."""
    code = self.entry.code
    if code is None or "code" not in answer:
      return None
    expected = code["sha256"][:12]
    if answer["code"] == expected:
      return None
    return (
      f"it has the code {answer['code']}, and the last `setup` copied"
      f" {expected}; run `python -m launch setup {self.entry.name}`"
    )

  def _files(self) -> list[str]:
    """Returns the files that every worker gets."""
    folder = self._ledger.folder(self.entry.name)
    files = [folder / source_archive.TAR]
    files += [folder / source_archive.SCRIPT] * (self.entry.script is not None)
    return list(map(str, [*files, *(_HOST / name for name in _HOST_FILES)]))

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


def _machine(slice: int, worker: int, answer: dict) -> str:
  return f"slice {slice} worker {worker}, {answer.get('host')}"


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
