"""Managed instance groups of Compute Engine, from v5p on.

TPU7x is available in no other way, except on GKE.

A slice of several hosts is a workload policy, which has the topology, an
instance template, which has the machine, and a group with both. They are
deleted in the reverse order.
"""

import json
from collections.abc import Sequence

from launch import failures, names, ssh_commands
from launch.command import CommandResult, Shell
from launch.errors import CommandFailed
from launch.request import Request
from launch.states import State

_COMPUTE = ("gcloud", "compute")
_GROUPS = (*_COMPUTE, "instance-groups", "managed")
_LOST = {"STOPPING", "STOPPED", "SUSPENDING", "SUSPENDED", "TERMINATED"}


class Mig:
  """The managed instance group of one request."""

  def __init__(self, request: Request, shell: Shell):
    self._request, self._shell = request, shell

  def create(self) -> None:
    """Creates all parts of the group, or none if one fails.

    Raises:
      CommandFailed: a part was refused.
    """
    made = []
    for make, unmake in self._parts():
      try:
        self._shell.run_checked(make)
      except CommandFailed:
        for argv in made:
          self._shell.run(argv)
        raise
      made.insert(0, unmake)

  def state(self) -> State:
    """Returns the state of the group.

    Raises:
      CommandFailed: its hosts cannot be created, for a reason that stays.
    """
    found = self._instances()
    if found is None:
      return State.ABSENT
    said = {instance.get("instanceStatus") for instance in found}
    if said & _LOST:
      return State.LOST
    if len(found) == self._request.hosts and said == {"RUNNING"}:
      return State.READY
    for message in map(_error, found):
      failure = failures.from_service(self._request.name, message)
      if failure is not None:
        raise failure
    return State.CREATING

  def delete(self) -> None:
    """Deletes all parts of the group; succeeds if they are already gone."""
    for _, argv in reversed(self._parts()):
      self._shell.output_if_found(argv)

  def mounts(self) -> list[tuple[str, str]]:
    """Returns the device and the mount of each data disk."""
    return [(f"google-{name}", mount) for name, mount in self._request.mounts]

  def run_on_all(self, command: str, assume: str = "") -> list[CommandResult]:
    """Runs a command on all hosts; returns their results as one slice's."""
    every = [self._ssh(name, command) for name in self._hosts()]
    done = self._shell.run_at_once(every, assume)
    worst = max((x.status for x in done), default=0)
    out = "\n".join(x.out for x in done)
    return [CommandResult(worst, out, "\n".join(x.err for x in done))]

  def run_on(
    self, slice: int, worker: int, command: str, assume=""
  ) -> CommandResult:
    """Runs a command on all hosts, of which only this worker acts on it.

    A group does not tell which host is which worker, but the hosts know.
    """
    return self.run_on_all(command, assume)[slice]

  def copy(self, files: Sequence[str], folder: str) -> None:
    """Copies local files into a folder in the home of each host."""
    place = (*self._request.place, "--quiet")
    every = [
      [*_COMPUTE, "scp", *files, f"{name}:{folder}/", *place]
      for name in self._hosts()
    ]
    for argv, done in zip(every, self._shell.run_at_once(every), strict=True):
      if done.status:
        raise failures.from_command(argv, done.err, done.status)

  def _parts(self) -> list[tuple[list[str], list[str]]]:
    """Returns the commands that create and delete each part, in order."""
    name, request = self._request.name, self._request
    template = _deletion("instance-templates", f"{name}-template")
    group = [*_GROUPS, "delete", name, f"--zone={request.zone}"]
    parts = [(self._template(), template), (self._group(), group)]
    if request.slice.hosts > 1:
      region = f"--region={names.region(request.zone)}"
      policy = [*_deletion("resource-policies", f"{name}-policy"), region]
      parts.insert(0, (self._policy(region), policy))
    owner = request.owner
    return [
      ([*make, *owner, "--quiet"], [*unmake, *owner, "--quiet"])
      for make, unmake in parts
    ]

  def _policy(self, region: str) -> list[str]:
    return [
      *_COMPUTE,
      "resource-policies",
      "create",
      "workload-policy",
      f"{self._request.name}-policy",
      "--type=HIGH_THROUGHPUT",
      f"--accelerator-topology={self._request.slice.shape}",
      region,
    ]

  def _template(self) -> list[str]:
    request = self._request
    spot = ["--provisioning-model=SPOT", "--instance-termination-action=DELETE"]
    return [
      *_COMPUTE,
      "instance-templates",
      "create",
      f"{request.name}-template",
      f"--machine-type={request.slice.machine_type}",
      "--maintenance-policy=TERMINATE",
      *(spot if request.capacity == "spot" else []),
      f"--image-family={request.slice.chip.image}",
      "--image-project=ubuntu-os-accelerator-images",
      "--boot-disk-size=200GB",
      *(
        f"--disk=name={name},device-name={name},mode=ro,auto-delete=no"
        for name, _ in request.mounts
      ),
      "--scopes=cloud-platform",
      f"--labels=jaxsae={request.name}",
    ]

  def _group(self) -> list[str]:
    request = self._request
    region = f"projects/{request.project}/regions/{names.region(request.zone)}"
    policy = [
      f"--workload-policy={region}/resourcePolicies/{request.name}-policy"
    ]
    return [
      *_GROUPS,
      "create",
      request.name,
      f"--template={request.name}-template",
      f"--size={request.hosts}",
      *(policy if request.slice.hosts > 1 else []),
      # A host that is replaced alone is no longer part of the slice.
      "--default-action-on-vm-failure=do-nothing",
      f"--zone={request.zone}",
    ]

  def _hosts(self) -> list[str]:
    return [found["name"] for found in self._instances() or []]

  def _instances(self) -> list[dict] | None:
    """Returns the group's instances; None if there is no group."""
    argv = [*_GROUPS, "list-instances", self._request.name]
    found = self._shell.output_if_found(
      [*argv, *self._request.place, "--format=json"], self._assumed()
    )
    return None if found is None else json.loads(found)

  def _assumed(self) -> str:
    """Returns made-up hosts for a dry run, as their names are not known yet."""
    return json.dumps(
      [
        {"name": f"{self._request.name}-HOST{i}", "instanceStatus": "RUNNING"}
        for i in range(self._request.hosts)
      ]
    )

  def _ssh(self, host: str, command: str) -> list[str]:
    place = (*self._request.place, *ssh_commands.SSH_TIMEOUTS, "--quiet")
    return [*_COMPUTE, "ssh", host, *place, f"--command={command}"]


def _error(instance: dict) -> str:
  """Returns why the last attempt to create a host failed, or ""."""
  errors = instance.get("lastAttempt", {}).get("errors", {}).get("errors", [])
  return "\n".join(error.get("message", "") for error in errors)


def _deletion(kind: str, name: str) -> list[str]:
  return [*_COMPUTE, kind, "delete", name]


def running(shell: Shell, owner: Sequence[str]) -> list[tuple[str, str, str]]:
  """Lists name, zone and state of all hosts with our label.

  Args:
    owner: the project flag of gcloud, if any.
  """
  argv = [*_COMPUTE, "instances", "list", *owner, "--filter=labels.jaxsae:*"]
  found = json.loads(shell.run_checked([*argv, "--format=json"], assume="[]"))
  return [(x["name"], x["zone"].rpartition("/")[2], x["status"]) for x in found]
