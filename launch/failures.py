"""Turns errors of gcloud and kubectl into one sentence with a remedy."""

import re
from collections.abc import Sequence

from launch.errors import CommandFailed

LOGIN, PROJECT, QUOTA = "login", "project", "quota"
CAPACITY, NAME_TAKEN, ABSENT = "capacity", "taken", "absent"
ZONE, PERMISSION, UNREACHABLE = "place", "permission", "out of reach"
DISK = "disk"
USAGE = "usage"  # gcloud or kubectl does not understand the command
OTHER = "other"
UNFIT = "unfit"  # a machine lacks what the run needs
BUCKET = "bucket"  # the run's bucket does not answer, which may pass

# After these, nothing was created: there is nothing to delete or to pay for.
NOTHING_CREATED = {
  LOGIN,
  PROJECT,
  QUOTA,
  CAPACITY,
  NAME_TAKEN,
  ZONE,
  PERMISSION,
  DISK,
  USAGE,
}

# The first pattern that matches, ignoring case, decides.
_PATTERNS = (
  (
    LOGIN,
    r"gcloud auth login|not currently have an active account|"
    r"reauthentication|UNAUTHENTICATED|invalid_grant|"
    r"must be logged in to the server",
  ),
  (
    PROJECT,
    r"(property|parameter|attribute) \[(core/)?project\]|"
    r"property `?core/project",
  ),
  (
    USAGE,
    r"error parsing \[|unrecognized arguments|invalid choice|unknown flag|"
    r"argument --?\S+: ",
  ),
  (NAME_TAKEN, r"ALREADY_EXISTS|already exists"),
  (
    CAPACITY,
    r"no more capacity|stockout|RESOURCE_POOL_EXHAUSTED|"
    r"insufficient capacity|does not have enough resources",
  ),
  (QUOTA, r"quota"),
  (
    ZONE,
    r"locations/\S+ \(or it may not exist\)|location \S+ is not found|"
    r"unknown zone|invalid value for field '?zone|"
    r"accelerator type \S+ (was )?not found|"
    r"'projects/\S+/zones/[^/\s]+' was not found",
  ),
  (DISK, r"/disks/\S+ (was )?not found"),
  (ABSENT, r"NOT_FOUND|was not found|NotFound"),
  (
    PERMISSION,
    r"PERMISSION_DENIED|does not have permission|"
    r"required '\S+' permission",
  ),
)

_REMEDY = {
  LOGIN: "you are not logged in; run `gcloud auth login`",
  PROJECT: "no project is set; give --project=ID, or run `gcloud config set"
  " project ID`",
  QUOTA: "the project's quota does not allow it; ask for more at"
  " https://console.cloud.google.com/iam-admin/quotas, or choose a smaller"
  " --topology, another --zone or another --capacity",
  CAPACITY: "there is no capacity in this zone now; try again later, another"
  " --zone, or --capacity=queued, which waits for it",
  NAME_TAKEN: "the name is taken; choose another NAME",
  ABSENT: "it does not exist; `python -m launch list` shows what does",
  ZONE: "the zone does not exist or lacks this TPU; `gcloud compute tpus"
  " locations list` and `gcloud compute tpus accelerator-types list"
  " --zone=ZONE` show what is available",
  DISK: "a data disk does not exist in this zone and project; `gcloud compute"
  " disks list` shows yours",
  PERMISSION: "you may not do this in this project; ask its owner for the role"
  " TPU Admin, and check --project",
  USAGE: "the command was not understood; update it, for gcloud with `gcloud"
  " components update`",
  UNREACHABLE: "the machine does not answer by ssh; try again, and check the"
  " firewall (`gcloud compute firewall-rules list`)",
}


def from_command(argv: Sequence[str], said: str, status: int) -> CommandFailed:
  """Returns the error to raise for a command that failed.

  Args:
    argv: the command.
    said: its error output.
    status: its exit status; ssh's own is 255.
  """
  kind = kind_of(said, status)
  remedy = _REMEDY.get(kind, "the command failed")
  what = " ".join(word for word in argv[:6] if not word.startswith("-"))
  return CommandFailed(
    kind, f"{remedy} (`{what} …`: {_main_line(said, status)})."
  )


def from_worker(name: str, said: str, status: int) -> CommandFailed:
  """Returns the error to raise for a command that failed on a worker.

  Only gcloud's own errors are classified; a worker may print anything.
  """
  if "ERROR: (gcloud" in said:
    return from_command(("gcloud", "ssh", name), said, status)
  kind = UNREACHABLE if status == 255 else OTHER
  remedy = _REMEDY.get(kind, "a command on the worker failed")
  return CommandFailed(
    kind, f"{remedy} (on {name}: {_main_line(said, status)})."
  )


def from_service(what: str, said: str) -> CommandFailed | None:
  """Returns the error to raise where a request failed after it was accepted.

  None if waiting or another request may help, as it may where capacity lacks.
  """
  kind = kind_of(said)
  if kind not in (QUOTA, ZONE, PERMISSION, DISK):
    return None
  return CommandFailed(
    kind, f"{_REMEDY[kind]} ({what}: {_main_line(said, 1)})."
  )


def from_unfit(found: Sequence[tuple[str, str]]) -> CommandFailed:
  """Returns the error to raise for machines that cannot do the run.

  Args:
    found: each problem, and the machine that has it. The lines of a problem
      after the first are the output of a program; that of one machine is shown.
  """
  machines, outputs = {}, {}
  for problem, machine in found:
    sentence, _, output = problem.partition("\n")
    machines.setdefault(sentence, []).append(machine)
    outputs.setdefault(sentence, output)
  told = []
  for sentence, having in machines.items():
    more = f"; and on {len(having) - 1} more" if len(having) > 1 else ""
    told.append(f"{sentence} (on {having[0]}{more})")
  lines = [f"\n{output}" for output in outputs.values() if output]
  return CommandFailed(UNFIT, "; ".join(told) + "." + "".join(lines))


def from_silent_bucket(why: str, machine: str) -> CommandFailed:
  """Returns the error to raise where a run's bucket does not answer."""
  return CommandFailed(BUCKET, f"{why} (on {machine}).")


def kind_of(said: str, status: int = 1) -> str:
  """Returns the kind of failure that an error message describes."""
  for kind, pattern in _PATTERNS:
    if re.search(pattern, said, re.IGNORECASE):
      return kind
  return UNREACHABLE if status == 255 else OTHER


def _main_line(said: str, status: int) -> str:
  """Returns the most informative words, cut to 400 characters.

  gcloud often names the cause in the lines below that of its error.
  """
  lines = [line.strip() for line in said.splitlines() if line.strip()]
  errors = [i for i, line in enumerate(lines) if "ERROR" in line]
  telling = " ".join(lines[errors[0] :] if errors else lines[-1:])
  return telling[:400].rstrip(".") or f"status {status}"
