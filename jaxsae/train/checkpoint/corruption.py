"""Corrupted checkpoints: all processes agree, warn, and move them aside."""

import itertools
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from etils import epath

from jaxsae import pod, storage
from jaxsae.errors import UserError
from jaxsae.files import is_remote

T = TypeVar("T")

# Where folders cannot be renamed, Orbax ends a save by writing this file.
COMMITTED = "commit_success.txt"


class Corrupted(Exception):
  """A checkpoint cannot be used; the message says why."""


def agreed(read: Callable[[], T]) -> T:
  """Returns what `read` returns, if no process finds corruption.

  `read` must not wait for other processes.

  Raises:
    Corrupted: a process found it; raised in all, with the same message.
    UserError, RunError: `read` raised it in some process; raised in all.
  """

  def attempt() -> tuple[list[T], str]:
    try:
      return [read()], ""
    except Corrupted as error:
      return [], str(error)

  found, reason = pod.on_all(attempt)
  for text in pod.gather_texts(reason):
    if text:
      raise Corrupted(text)
  return found[0]


def warn(directory: epath.Path, reasons: Mapping[int, str], used: int) -> None:
  """Prints on stderr which checkpoints are corrupted, and which one is used.

  Args:
    directory: the folder of checkpoints.
    reasons: step → why it is corrupted.
    used: the step of the intact checkpoint that is used.
  """
  if pod.is_leader() and reasons:
    for step, reason in sorted(reasons.items()):
      print(
        f"warning: checkpoint {step} in {directory} cannot be used: {reason}.",
        file=sys.stderr,
      )
    print(f"checkpoint {used} is intact and is used", file=sys.stderr)


def refusal(directory: epath.Path, reasons: Mapping[int, str]) -> UserError:
  """Makes the error for when no checkpoint can be used."""
  if not reasons:
    return UserError(f"{directory} has no checkpoint yet; train first.")
  each = "; ".join(f"{step}: {reason}" for step, reason in reasons.items())
  return UserError(
    f"no checkpoint in {directory} can be used. {each}. Nothing was deleted or"
    " moved; put back a copy of one of them, or start a new run with another"
    " --workdir=DIR."
  )


def put_aside(directory: epath.Path, steps: Iterable[int]) -> None:
  """Moves checkpoints to `damaged/`, beside their folder, under free names.

  Raises:
    UserError: they cannot be moved; raised in all processes.
  """
  folder = directory.parent / "damaged"

  def move():
    try:
      for step in sorted(steps):
        place = _move(directory / str(step), folder)
        print(f"checkpoint {step} is kept as {place}", file=sys.stderr)
    except OSError as error:
      raise UserError(
        f"corrupted checkpoints in {directory} cannot be moved to {folder}"
        f" ({error.strerror}); fix permissions there and run the same"
        " command again."
      ) from error

  pod.on_leader(move)


def _move(path: epath.Path, folder: epath.Path) -> epath.Path:
  folder.mkdir(parents=True, exist_ok=True)
  endings = itertools.chain([""], (f".{n}" for n in itertools.count(2)))
  names = (folder / f"{path.name}{ending}" for ending in endings)
  place = next(name for name in names if not name.exists())
  if is_remote(path):
    storage.move(path, place, first=COMMITTED)  # it ends being a checkpoint
  else:
    path.rename(place)
  return place
