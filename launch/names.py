"""What people type: checked before it gets anywhere near a command."""

import fnmatch
import re

from launch.errors import LaunchError

# Short, for what is made of it: NAME-policy, NAME-slice-0-0-x7k2p.
_NAME = r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?"
_REGION = r"[a-z]+-[a-z]+[0-9]+"
_ZONE = rf"{_REGION}-[a-z]"
_PROJECT = r"([a-z][-a-z0-9.]{0,61}:)?[a-z][-a-z0-9]{4,28}[a-z0-9]"
_DURATION = r"[1-9][0-9]{0,5}[smhd]"
_IMAGE = r"[a-z0-9][-a-z0-9._/:]{0,250}(@sha256:[0-9a-f]{64})?"
_VARIABLE = r"[A-Za-z_][A-Za-z0-9_]{0,100}"
_SECRET = ("*TOKEN*", "*KEY*", "*SECRET*", "*PASSWORD*", "*CREDENTIAL*")


def name(text: str) -> str:
  """A name for what is created; letters, digits and hyphens, at most 40."""
  return _checked(
    text,
    _NAME,
    "is no name; use a small letter, then small letters, digits and hyphens,"
    " 40 at most",
  )


def zone(text: str) -> str:
  """A zone of Google Cloud."""
  return _checked(text, _ZONE, "is no zone; one is written as us-central1-a")


def location(text: str) -> str:
  """Where a cluster is: a zone or a region."""
  return _checked(
    text,
    f"{_REGION}(-[a-z])?",
    "is no zone and no region; they are written as us-central1-a, us-central1",
  )


def region(zone: str) -> str:
  """The region that a zone lies in."""
  return zone.rpartition("-")[0]


def project(text: str) -> str:
  """A project's id."""
  return _checked(
    text, _PROJECT, "is no project id; `gcloud projects list` shows yours"
  )


def duration(text: str) -> str:
  """A time as gcloud takes it."""
  return _checked(
    text, _DURATION, "is no duration; write a number and s, m, h or d, as 6h"
  )


def image(text: str) -> str:
  """A container image."""
  return _checked(
    text,
    _IMAGE,
    "is no image; one is written as us-docker.pkg.dev/PROJECT/REPO/NAME:TAG",
  )


def env_variable(text: str) -> tuple[str, str]:
  """A variable and its value, of KEY=VALUE; neither may be a secret."""
  key, equals, value = text.partition("=")
  if not equals or not re.fullmatch(_VARIABLE, key):
    raise LaunchError(f"--env={key} is no setting; write --env=NAME=VALUE.")
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
