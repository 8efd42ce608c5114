"""Carries out the verbs of the command line."""

import argparse
import hashlib
import json
import pathlib
import re

from launch import (
  command_line,
  delete_on_exit,
  experiment_runs,
  mig,
  names,
  skypilot,
  source_archive,
  spending_limit,
  tpu_vm,
)
from launch.clusters import Cluster
from launch.command import Shell
from launch.errors import CommandFailed, LaunchError
from launch.ledger import Entry, Ledger, Run, now
from launch.machines import Machines, dry_run_watch, make_supervisor


class Session:
  """One call of `python -m launch`: its verb and options."""

  def __init__(self, options: argparse.Namespace):
    self._options = options
    self._shell = Shell(dry=options.dry_run)
    self._ledger = Ledger(options.state, dry=options.dry_run)

  def do(self) -> int:
    """Carries out the verb and returns its exit status."""
    return getattr(self, f"_{self._options.verb}")() or 0

  def _create(self) -> None:
    options = self._options
    request = command_line.request(options)
    if self._ledger.is_real(request.name):
      raise LaunchError(
        f"{request.name} was already created here; choose another NAME or run"
        f" `python -m launch delete {request.name}` first."
      )
    self._say(
      spending_limit.check(request, options.plan, options.max_cost, options.yes)
    )
    entry = Entry(request, now())
    # Recorded before it is created, so that nothing exists unrecorded.
    self._ledger.write(entry)
    self._backend(entry).create(options.poll)
    self._say(f"{request.name} is ready: {request.hosts} workers")

  def _setup(self) -> None:
    options = self._options
    self._backend(self._entry()).set_up(options.rev, options.script)

  def _run(self) -> None:
    entry = self._ledger.read(self._options.on)
    run = self._new_run(entry, self._argv())
    self._backend(entry).start(run)
    self._say(
      f"{run.id} runs on {entry.name}; follow it with `python -m launch watch"
      f" {entry.name}`"
    )

  def _watch(self) -> int:
    return self._backend(self._entry()).watch(self._options)

  def _status(self) -> None:
    self._backend(self._entry()).status()

  def _logs(self) -> None:
    self._backend(self._entry()).logs(self._options.slice, self._options.worker)

  def _stop(self) -> None:
    self._backend(self._entry()).stop()

  def _delete(self) -> None:
    entry = self._entry()
    try:
      self._backend(entry).delete()
    except CommandFailed as failure:
      raise CommandFailed(
        failure.kind,
        f"{failure} {entry.name} stays on record; if it does not exist, remove"
        f" {self._ledger.file(entry.name)}.",
      ) from failure

  def _list(self) -> None:
    project = self._options.project
    owner = [f"--project={names.project(project)}"] if project else []
    found = tpu_vm.running(self._shell, owner) + mig.running(self._shell, owner)
    for name, zone, state in sorted(found):
      self._say(f"{name}  {zone}  {state}")
    if not found:
      self._say("nothing runs with the label jaxsae")
    for name in self._ledger.names():
      if self._ledger.read(name).request.backend == "gke":
        self._say(f"{name}  a JobSet: `python -m launch status {name}`")

  def _sweep(self) -> int:
    entries = map(self._ledger.read, self._options.on.split(","))
    every = [self._machines(entry) for entry in entries]
    experiment_runs.check_slices([machines.hosts for machines in every])
    argv = self._argv()
    for index, machines in enumerate(every):
      self._resume(
        machines, experiment_runs.shard_argv(argv, index, len(every))
      )
    if self._shell.dry:
      delete = self._options.delete_when_done
      return max(dry_run_watch(machines.hosts, delete) for machines in every)
    return self._watch_all([machines.hosts for machines in every])

  def _resume(self, machines: Machines, argv: list[str]) -> None:
    """Starts one slice's share of a sweep unless it is already running."""
    entry = machines.hosts.entry
    run = self._new_run(entry, argv)
    if entry.run is not None and entry.run.id == run.id and not self._shell.dry:
      states = {said["state"] for said in machines.hosts.poll().values()}
      if states == {"running"}:
        self._say(f"{run.id} is already running on {entry.name}")
        return
    machines.start(run)

  def _watch_all(self, every: list) -> int:
    options, watch = self._options, experiment_runs.ParallelWatch()
    pending = list(every) if options.delete_when_done else []
    shares = [
      self._share_watcher(hosts, pending, watch.sleep) for hosts in every
    ]
    with delete_on_exit.delete_after(
      pending, self._ledger.remove, self._say, options.poll
    ):
      return watch.run(shares)

  def _share_watcher(self, hosts, pending: list, sleep):
    """Returns a function that watches one slice, and deletes it if asked."""
    tell = lambda line: self._say(f"[{hosts.entry.name}] {line}")
    stream = lambda text: [tell(line) for line in text.splitlines()]
    supervisor = make_supervisor(
      hosts, self._options, tell, stream, sleep=sleep
    )

    def share() -> int:
      status = supervisor.watch()
      if hosts in pending:
        pending.remove(hosts)
        delete_on_exit.delete(
          hosts, self._ledger.remove, tell, self._options.poll
        )
      return status

    return share

  def _skypilot(self) -> None:
    request = command_line.request(self._options)
    skypilot.check(request)
    run = self._new_run(Entry(request, now()), self._argv())
    print(json.dumps(skypilot.task(request, run), indent=2))

  def _entry(self) -> Entry:
    return self._ledger.read(self._options.name)

  def _backend(self, entry: Entry):
    """Returns the backend that carries out the verbs on an entry."""
    kind = Cluster if entry.request.backend == "gke" else Machines
    return kind(entry, self._ledger, self._shell, self._say)

  def _machines(self, entry: Entry) -> Machines:
    if entry.request.backend == "gke":
      raise LaunchError(
        f"{entry.name} is a JobSet; a sweep needs slices that can be reached"
        " by ssh: create them with --backend=tpu-vm or mig."
      )
    return self._backend(entry)

  def _argv(self) -> list[str]:
    argv, _ = command_line.experiment(self._options)
    source_archive.check_contains(self._shell, argv[0])
    return argv

  def _new_run(self, entry: Entry, argv: list[str]) -> Run:
    """Returns the run of a command; repeating the command resumes the run."""
    env = dict(map(names.env_variable, self._options.env))
    _, workdir = command_line.experiment(self._options)
    stem = re.sub("[^a-z0-9]+", "-", pathlib.Path(argv[0]).stem.lower())
    told = json.dumps([entry.name, argv, sorted(env.items())])
    digest = hashlib.sha256(told.encode()).hexdigest()[:6]
    return Run(f"{stem.strip('-')}-{digest}", argv, workdir, env)

  def _say(self, line: str) -> None:
    """Prints a line, except in a dry run, where nothing has happened."""
    if not self._shell.dry:
      print(line, flush=True)
