"""Checks user input before it is used in any command."""

import fnmatch
import os
import re

from launch.errors import LaunchError

# Short enough for the names derived from it: NAME-policy, NAME-slice-0-0-x7k2p.
_NAME = r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?"
_REGION = r"[a-z]+-[a-z]+[0-9]+"
_ZONE = rf"{_REGION}-[a-z]"
_PROJECT = r"([a-z][-a-z0-9.]{0,61}:)?[a-z][-a-z0-9]{4,28}[a-z0-9]"
_DURATION = r"[1-9][0-9]{0,5}[smhd]"
_IMAGE = r"[a-z0-9][-a-z0-9._/:]{0,250}(@sha256:[0-9a-f]{64})?"
_VARIABLE = r"[A-Za-z_][A-Za-z0-9_]{0,100}"
_DISK = r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?"
_FOLDER = r"(/[A-Za-z0-9_][-A-Za-z0-9._]{0,100}){2,10}"
# A disk mounted below one of these would hide what the machine needs.
_OF_THE_SYSTEM = {
  *("bin", "boot", "dev", "etc", "home", "lib", "lib32", "lib64", "proc"),
  *("root", "run", "sbin", "sys", "usr", "var"),
}
_SECRET = ("*TOKEN*", "*KEY*", "*SECRET*", "*PASSWORD*", "*CREDENTIAL*")


def name(text: str) -> str:
  """Checks a name: letters, digits and hyphens, at most 40."""
  return _checked(
    text,
    _NAME,
    "is not a valid name; use a lowercase letter, then lowercase letters,"
    " digits and hyphens, at most 40 in all",
  )


def zone(text: str) -> str:
  """Checks a zone of Google Cloud."""
  return _checked(text, _ZONE, "is not a zone; write it like us-central1-a")


def location(text: str) -> str:
  """Checks the location of a cluster: a zone or a region."""
  return _checked(
    text,
    f"{_REGION}(-[a-z])?",
    "is not a zone or region; write it like us-central1-a or us-central1",
  )


def region(zone: str) -> str:
  """Returns the region of a zone."""
  return zone.rpartition("-")[0]


def project(text: str) -> str:
  """Checks the ID of a project."""
  return _checked(
    text, _PROJECT, "is not a project ID; `gcloud projects list` shows yours"
  )


def duration(text: str) -> str:
  """Checks a duration in gcloud's notation."""
  return _checked(
    text,
    _DURATION,
    "is not a duration; write a number and s, m, h or d, such as 6h",
  )


def image(text: str) -> str:
  """Checks the name of a container image."""
  return _checked(
    text,
    _IMAGE,
    "is not an image; write it like us-docker.pkg.dev/PROJECT/REPO/NAME:TAG",
  )


def disk(text: str) -> str:
  """Checks NAME or NAME:MOUNT of a data disk; returns NAME:MOUNT."""
  name, _, mount = text.partition(":")
  mount = mount or f"/mnt/{name}"
  if not re.fullmatch(_DISK, name):
    raise LaunchError(
      f"--disk={text!r}: {name!r} is not the name of a disk; `gcloud compute"
      " disks list` shows yours."
    )
  if not re.fullmatch(_FOLDER, mount) or mount.split("/")[1] in _OF_THE_SYSTEM:
    raise LaunchError(
      f"--disk={text!r}: {mount!r} is not a place for a disk; write"
      f" --disk={name}:/mnt/FOLDER, with letters, digits, dots, hyphens and"
      " underscores."
    )
  return f"{name}:{mount}"


def env_variable(text: str) -> tuple[str, str]:
  """Splits KEY=VALUE and refuses names that look like secrets."""
  key, equals, value = text.partition("=")
  if not equals or not re.fullmatch(_VARIABLE, key):
    raise LaunchError(f"--env={key} is not a variable; write --env=NAME=VALUE.")
  if any(fnmatch.fnmatchcase(key.upper(), sign) for sign in _SECRET):
    raise LaunchError(
      f"--env={key}=… looks like a secret, and a command line can be read by"
      " others and is logged; put it into ~/.jaxsae/env on the machine, as"
      f" {key}=VALUE, with mode 0600, or read it from Secret Manager."
    )
  return key, value


def _checked(text: str, pattern: str, complaint: str) -> str:
  if not re.fullmatch(pattern, text):
    raise LaunchError(f"{text!r} {complaint}.")
  return text


def path(text: str) -> str:
  """Returns a path of this machine; a leading `~` is the home folder."""
  return os.path.expanduser(text)
