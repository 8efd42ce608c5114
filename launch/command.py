"""The one place from which other programs are started, or only shown.

A command is a list of arguments and never passes through a shell here. What a
dry run prints is that list, quoted so that it can be pasted into one.
"""

import dataclasses
import shlex
import subprocess
from collections.abc import Sequence

from launch import failures
from launch.errors import LaunchError

_INSTALL = {
  "gcloud": "install the Google Cloud CLI (https://cloud.google.com/sdk/docs/"
  "install) and log in with `gcloud auth login`",
  "kubectl": "install it with `gcloud components install kubectl`",
}


@dataclasses.dataclass(frozen=True)
class CommandResult:
  """What a program left: its exit status, and what it printed."""

  status: int
  out: str
  err: str = ""


class Shell:
  """Runs commands; or, as a dry run, prints them and runs nothing.

  Attributes:
    dry: whether it is a dry run.
  """

  def __init__(self, dry: bool = False):
    self.dry = dry

  def run(
    self, argv: Sequence[str], assume: str = "", stdin: str | None = None
  ) -> CommandResult:
    """Runs a command to its end, whatever its status.

    Args:
      assume: what a dry run takes to be its output.
      stdin: what it is given to read; a dry run prints it too.

    Raises:
      LaunchError: there is no such program.
    """
    if self.dry:
      self._show(argv, stdin)
      return CommandResult(0, assume)
    try:
      done = subprocess.run(
        list(argv),
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
      )
    except FileNotFoundError as error:
      remedy = _INSTALL.get(argv[0], "install it")
      raise LaunchError(f"{argv[0]} is not on PATH; {remedy}.") from error
    return CommandResult(done.returncode, done.stdout, done.stderr)

  def run_checked(self, argv: Sequence[str], **options) -> str:
    """Runs a command that has to succeed; what it printed.

    Raises:
      CommandFailed: it did not.
    """
    done = self.run(argv, **options)
    if done.status:
      raise failures.from_command(argv, done.err or done.out, done.status)
    return done.out

  def output_if_found(
    self, argv: Sequence[str], assume: str = ""
  ) -> str | None:
    """What a command printed; None: there is nothing of the name it gives.

    Raises:
      CommandFailed: it failed for another reason.
    """
    done = self.run(argv, assume)
    if not done.status:
      return done.out
    if failures.kind_of(done.err, done.status) != failures.ABSENT:
      raise failures.from_command(argv, done.err, done.status)
    return None

  def _show(self, argv: Sequence[str], stdin: str | None) -> None:
    print(shlex.join(argv))
    if stdin is not None:
      print("\n".join(f"< {line}" for line in stdin.splitlines()))
