"""What gcloud and kubectl say when they fail → one sentence and a remedy."""

import re
from collections.abc import Sequence

from launch.errors import CommandFailed

LOGIN, PROJECT, QUOTA = "login", "project", "quota"
CAPACITY, NAME_TAKEN, ABSENT = "capacity", "taken", "absent"
ZONE, PERMISSION, UNREACHABLE = "place", "permission", "out of reach"
OTHER = "other"

# After these nothing was made, so there is nothing to delete or to pay.
NOTHING_CREATED = {
  LOGIN,
  PROJECT,
  QUOTA,
  CAPACITY,
  NAME_TAKEN,
  ZONE,
  PERMISSION,
}

# The first that matches what was said, whatever its case, is taken.
_PATTERNS = (
  (
    LOGIN,
    r"gcloud auth login|not currently have an active account|"
    r"reauthentication|UNAUTHENTICATED|invalid_grant|"
    r"must be logged in to the server",
  ),
  (PROJECT, r"property \[(core/)?project\]|parameter \[project\]"),
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
  " https://console.cloud.google.com/iam-admin/quotas, or take a smaller"
  " --topology, another --zone or another --capacity",
  CAPACITY: "there is no capacity in this zone now; try again later, another"
  " --zone, or --capacity=queued, which waits for it",
  NAME_TAKEN: "the name is taken; choose another NAME",
  ABSENT: "there is no such thing; `python -m launch list` shows what is there",
  ZONE: "the zone is not one, or does not have this TPU; `gcloud compute tpus"
  " locations list` and `gcloud compute tpus accelerator-types list"
  " --zone=ZONE` show what there is",
  PERMISSION: "you may not do this in this project; ask its owner for the role"
  " TPU Admin, and check --project",
  UNREACHABLE: "the machine does not answer by ssh; try again, and check the"
  " firewall (`gcloud compute firewall-rules list`)",
}


def from_command(argv: Sequence[str], said: str, status: int) -> CommandFailed:
  """The failure that a command is in.

  Args:
    argv: the command.
    said: what it printed.
    status: its exit status; ssh's own is 255.
  """
  kind = kind_of(said, status)
  remedy = _REMEDY.get(kind, "see what it says")
  what = " ".join(word for word in argv[:6] if not word.startswith("-"))
  return CommandFailed(
    kind, f"{remedy} (`{what} …`: {_main_line(said, status)})."
  )


def from_worker(name: str, said: str, status: int) -> CommandFailed:
  """The failure that a command on a worker is in.

  What workers print is theirs; only gcloud's own errors are understood.
  """
  if "ERROR: (gcloud" in said:
    return from_command(("gcloud", "ssh", name), said, status)
  kind = UNREACHABLE if status == 255 else OTHER
  remedy = _REMEDY.get(kind, "a command failed there")
  return CommandFailed(
    kind, f"{remedy} (on {name}: {_main_line(said, status)})."
  )


def kind_of(said: str, status: int = 1) -> str:
  """Which kind of failure it is."""
  for kind, pattern in _PATTERNS:
    if re.search(pattern, said, re.IGNORECASE):
      return kind
  return UNREACHABLE if status == 255 else OTHER


def _main_line(said: str, status: int) -> str:
  """The line that says most, of at most 300 letters."""
  lines = [line.strip() for line in said.splitlines() if line.strip()]
  telling = [line for line in lines if "ERROR" in line] or lines[-1:]
  return telling[0][:300].rstrip(".") if telling else f"status {status}"
