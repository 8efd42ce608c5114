"""TPU VMs, created at once or through a queue by Cloud TPU's API: v4 to v6e."""

import json
from collections.abc import Sequence

from launch import failures, ssh_commands
from launch.command import CommandResult, Shell
from launch.request import LONGEST_FLEX_START, Request
from launch.states import State

_TPUS = ("gcloud", "compute", "tpus")
_NODE = {
  "CREATING": State.CREATING,
  "STARTING": State.CREATING,
  "RESTARTING": State.CREATING,
  "REIMAGING": State.CREATING,
  "REPAIRING": State.CREATING,
  "READY": State.READY,
  "DELETING": State.DELETING,
}
_QUEUED = {
  "CREATING": State.WAITING,
  "ACCEPTED": State.WAITING,
  "WAITING_FOR_RESOURCES": State.WAITING,
  "PROVISIONING": State.CREATING,
  "ACTIVE": State.READY,
  "DELETING": State.DELETING,
}


class TpuVm:
  """The slices of one request. A preempted spot VM must be deleted first."""

  def __init__(self, request: Request, shell: Shell):
    self._request, self._shell = request, shell

  @property
  def slices(self) -> list[str]:
    """The names of the slices."""
    name, count = self._request.name, self._request.slices
    return [name] if count == 1 else [f"{name}-{i}" for i in range(count)]

  def create(self) -> None:
    """Requests the slices; `state` tells when they are ready.

    Raises:
      CommandFailed: the request was refused.
    """
    queued = self._request.is_queued
    self._shell.run_checked(self._queue() if queued else self._make())

  def state(self) -> State:
    """Returns the state of the slices.

    Raises:
      CommandFailed: the request has failed, for a reason that stays.
    """
    queued = self._request.is_queued
    service = "queued-resources" if queued else "tpu-vm"
    found = self._shell.output_if_found(
      [
        *_TPUS,
        service,
        "describe",
        self._request.name,
        *self._request.place,
        "--format=json",
      ],
      assume='{"state": {"state": "ACTIVE"}}'
      if queued
      else '{"state":"READY"}',
    )
    if found is None:
      return State.ABSENT
    said = json.loads(found)["state"]
    if queued:
      message = said.get("failedData", {}).get("error", {}).get("message", "")
      failure = failures.from_service(self._request.name, message)
      # One that lacked quota is made again, a few times.
      if failure is not None and failure.kind != failures.QUOTA:
        raise failure
      return _QUEUED.get(said["state"], State.LOST)
    return _NODE.get(said, State.LOST)

  def delete(self) -> None:
    """Deletes all slices; succeeds if they are already gone."""
    argv = [*_TPUS, "tpu-vm", "delete", self._request.name]
    force = []
    if self._request.is_queued:
      argv[3], force = "queued-resources", ["--force"]  # its slices with it
    self._shell.output_if_found(
      [*argv, *self._request.place, *force, "--quiet"]
    )

  def mounts(self) -> list[tuple[str, str]]:
    """Returns the device and the mount of each data disk.

    The API gives disks no names; it numbers them in the order of the request,
    after the boot disk, which is 0.
    """
    return [
      (f"google-persistent-disk-{number}", mount)
      for number, (_, mount) in enumerate(self._request.mounts, 1)
    ]

  def run_on_all(self, command: str, assume: str = "") -> list[CommandResult]:
    """Runs a command on all workers; returns the result of each slice."""
    every = [self._ssh(name, "all", command) for name in self.slices]
    return self._shell.run_at_once(every, assume)

  def run_on(
    self, slice: int, worker: int, command: str, assume=""
  ) -> CommandResult:
    """Runs a command on one worker of one slice and returns its result."""
    argv = self._ssh(self.slices[slice], str(worker), command)
    return self._shell.run(argv, assume)

  def copy(self, files: Sequence[str], folder: str) -> None:
    """Copies local files into a folder in the home of each worker."""
    for name in self.slices:
      self._shell.run_checked(
        [
          *_TPUS,
          "tpu-vm",
          "scp",
          *files,
          f"{name}:{folder}/",
          *self._request.place,
          "--worker=all",
          "--quiet",
        ]
      )

  def _make(self) -> list[str]:
    request = self._request
    return [
      *_TPUS,
      "tpu-vm",
      "create",
      request.name,
      *request.place,
      f"--accelerator-type={request.slice.accelerator_type}",
      f"--version={request.slice.chip.runtime}",
      f"--labels=jaxsae={request.name}",
      *_data_disks(request),
      *["--spot"] * (request.capacity == "spot"),
      "--quiet",
    ]

  def _queue(self) -> list[str]:
    request = self._request
    if request.slices > 1:
      nodes = [
        f"--node-count={request.slices}",
        f"--node-prefix={request.name}",
      ]
    else:
      nodes = [f"--node-id={request.name}"]
    # Only the alpha release knows how to ask for flex-start.
    flex = request.capacity == "flex-start"
    return [
      "gcloud",
      *["alpha"] * flex,
      *_TPUS[1:],
      "queued-resources",
      "create",
      request.name,
      *request.place,
      *nodes,
      f"--accelerator-type={request.slice.accelerator_type}",
      f"--runtime-version={request.slice.chip.runtime}",
      f"--labels=jaxsae={request.name}",
      *_data_disks(request),
      *_terms(request),
      "--quiet",
    ]

  def _ssh(self, name: str, worker: str, command: str) -> list[str]:
    return [
      *_TPUS,
      "tpu-vm",
      "ssh",
      name,
      *self._request.place,
      f"--worker={worker}",
      *ssh_commands.SSH_TIMEOUTS,
      "--quiet",
      f"--command={command}",
    ]


def running(shell: Shell, owner: Sequence[str]) -> list[tuple[str, str, str]]:
  """Lists name, zone and state of all TPUs with our label, in all zones.

  Args:
    owner: the project flag of gcloud, if any.
  """
  argv = [*_TPUS, "tpu-vm", "list", "--zone=-", *owner]
  nodes = shell.run_checked(
    [*argv, "--filter=labels.jaxsae:*", "--format=json"], assume="[]"
  )
  argv[3] = "queued-resources"
  queued = shell.run_checked([*argv, "--format=json"], assume="[]")
  found = [(*_place(node), node["state"]) for node in json.loads(nodes)]
  for request in json.loads(queued):
    if any(_label(spec) for spec in request.get("tpu", {}).get("nodeSpec", [])):
      found.append((*_place(request), f"queued: {request['state']['state']}"))
  return found


def _data_disks(request: Request) -> list[str]:
  """Returns the flags that attach the data disks to every host."""
  place = f"projects/{request.project}/zones/{request.zone}/disks"
  return [
    f"--data-disk=source={place}/{name},mode=read-only"
    for name, _ in request.mounts
  ]


def _terms(request: Request) -> list[str]:
  terms = ["--spot"] * (request.capacity == "spot")
  if request.capacity == "flex-start":
    longest = request.max_run_duration or LONGEST_FLEX_START
    terms = ["--provisioning-model=flex-start", f"--max-run-duration={longest}"]
  if request.valid_until_duration:
    terms.append(f"--valid-until-duration={request.valid_until_duration}")
  return terms


def _place(found: dict) -> tuple[str, str]:
  """projects/P/locations/ZONE/nodes/NAME → name and zone."""
  parts = found["name"].split("/")
  return parts[-1], parts[-3]


def _label(spec: dict) -> str | None:
  return spec.get("node", {}).get("labels", {}).get("jaxsae")
