"""Checkpoints that can not be used: agreed on, told of, and put aside."""

import itertools
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from etils import epath

from jaxsae import pod
from jaxsae.errors import UserError

T = TypeVar("T")


class Corrupted(Exception):
  """A checkpoint can not be used; the text says why, for a person."""


def agreed(read: Callable[[], T]) -> T:
  """What `read` returns, if no process finds corruption in it.

  `read` must not wait for other processes.

  Raises:
    Corrupted: one of them did; on all, with the same text.
  """
  found, reason = None, ""
  try:
    found = read()
  except Corrupted as error:
    reason = str(error)
  for text in pod.gather_texts(reason):
    if text:
      raise Corrupted(text)
  return found


def tell(directory: epath.Path, reasons: Mapping[int, str], used: int) -> None:
  """Says on stderr which checkpoints are not used, and why, and which is.

  Args:
    directory: of the checkpoints.
    reasons: by step.
    used: the step of an intact one.
  """
  if pod.is_leader() and reasons:
    for step, reason in sorted(reasons.items()):
      print(
        f"warning: checkpoint {step} in {directory} can not be used: {reason}.",
        file=sys.stderr,
      )
    print(f"checkpoint {used} is intact and is used", file=sys.stderr)


def refusal(directory: epath.Path, reasons: Mapping[int, str]) -> UserError:
  """What to raise when no checkpoint can be used."""
  if not reasons:
    return UserError(f"{directory} has no checkpoint yet; train first.")
  each = "; ".join(f"{step}: {reason}" for step, reason in reasons.items())
  return UserError(
    f"no checkpoint in {directory} can be used. {each}. Nothing was deleted or"
    " moved; put back a copy of one of them, or start again with another"
    " --workdir=DIR."
  )


def put_aside(directory: epath.Path, steps: Iterable[int]) -> None:
  """Moves checkpoints into `damaged/` beside their folder, to a free name.

  Raises:
    UserError: they can not be moved; on all processes.
  """
  folder = directory.parent / "damaged"

  def move():
    try:
      for step in sorted(steps):
        place = _move(directory / str(step), folder)
        print(f"checkpoint {step} is kept as {place}", file=sys.stderr)
    except OSError as error:
      raise UserError(
        f"damaged checkpoints in {directory} can not be moved to {folder}"
        f" ({error.strerror}); mend permissions there, and give the same"
        " command again."
      ) from error

  pod.on_leader(move)


def _move(path: epath.Path, folder: epath.Path) -> epath.Path:
  folder.mkdir(parents=True, exist_ok=True)
  endings = itertools.chain([""], (f".{n}" for n in itertools.count(2)))
  names = (folder / f"{path.name}{ending}" for ending in endings)
  place = next(name for name in names if not name.exists())
  path.rename(place)
  return place
