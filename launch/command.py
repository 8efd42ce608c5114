"""Runs other programs, or in a dry run only prints their commands.

A command is a list of arguments and never passes through a shell here. A dry
run prints that list, quoted so that it can be pasted into a shell.
"""

import concurrent.futures
import dataclasses
import shlex
import subprocess
from collections.abc import Sequence

from launch import failures
from launch.errors import LaunchError

AT_ONCE = 32  # commands that run at the same time
_INSTALL = {
  "gcloud": "install the Google Cloud CLI (https://cloud.google.com/sdk/docs/"
  "install) and log in with `gcloud auth login`",
  "kubectl": "install it with `gcloud components install kubectl`",
}


@dataclasses.dataclass(frozen=True)
class CommandResult:
  """The exit status and the output of a program."""

  status: int
  out: str
  err: str = ""


class Shell:
  """Runs commands, or in a dry run only prints them.

  Attributes:
    dry: whether it is a dry run.
  """

  def __init__(self, dry: bool = False):
    self.dry = dry

  def run(
    self, argv: Sequence[str], assume: str = "", stdin: str | None = None
  ) -> CommandResult:
    """Runs a command and returns its result, whatever its status.

    Args:
      assume: the output that a dry run pretends to get.
      stdin: text passed to its standard input; a dry run prints it too.

    Raises:
      LaunchError: the program is not installed.
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

  def run_at_once(
    self, every: Sequence[Sequence[str]], assume: str = ""
  ) -> list[CommandResult]:
    """Runs commands at the same time and returns their results in order."""
    if self.dry or len(every) == 1:
      return [self.run(argv, assume) for argv in every]
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as threads:
      return list(threads.map(self.run, every))

  def run_checked(self, argv: Sequence[str], **options) -> str:
    """Runs a command that has to succeed and returns its output.

    Raises:
      CommandFailed: it did not succeed.
    """
    done = self.run(argv, **options)
    if done.status:
      raise failures.from_command(argv, done.err or done.out, done.status)
    return done.out

  def output_if_found(
    self, argv: Sequence[str], assume: str = ""
  ) -> str | None:
    """Returns what a command printed; None if its resource does not exist.

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
