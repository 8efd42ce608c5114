"""The lines of metrics: how they are written and read.

On a disk they are appended to `metrics.jsonl`. A store cannot append, and what
is being written there does not exist before it is closed. So while a run trains
in a store, its lines are in pieces, `metrics/STEP.jsonl`, each named after the
step of its first line. The newest piece is written anew, whole, with each flush
until it has `PIECE` bytes. When the run is complete, the pieces become
`metrics.jsonl`, as on a disk.

Both are read in the same way: the lines of metrics.jsonl, then those of each
piece; each of these files ends where the next begins.
"""

import itertools
import json
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

from etils import epath

from jaxsae.errors import UserError
from jaxsae.files import Path, entries, given_path, is_remote, whole_file
from jaxsae.train.monitor.uploads import Uploads

FILE, FOLDER = "metrics.jsonl", "metrics"
PIECE = 4 << 20  # bytes after which a new piece begins


def read_metrics(run: Path) -> Iterator[dict[str, Any]]:
  """Reads the metrics of a run, step by step, also while it trains.

  Args:
    run: the run's folder, local or remote.

  Yields:
    A line of metrics.jsonl: `step`, `tokens`, and figures as `NAME/FIGURE`.

  Raises:
    UserError: the folder has no metrics.
  """
  run = given_path(run)
  if not _parts(run):
    raise UserError(f"{run} has no {FILE}; give the folder of a run.")
  yield from map(json.loads, read_lines(run))


def read_lines(run: epath.Path) -> Iterator[str]:
  """Reads the lines of a run in order; a half-written one is left out."""
  parts = [*_parts(run), _Part(math.inf, run)]
  for part, following in itertools.pairwise(parts):
    yield from _read(part, until=following.first)


def newest_lines(run: epath.Path, count: int) -> list[str]:
  """Returns the newest lines of a run, oldest first."""
  found: list[str] = []
  until = math.inf
  for part in reversed(_parts(run)):
    found = [*_read(part, until), *found]
    until = part.first
    if len(found) >= count:
      break
  return found[-count:]


def drop_after(run: epath.Path, step: int) -> None:
  """Removes the lines of steps that will be written again, and half a line."""
  for part in reversed(_parts(run)):
    if part.first > step:
      part.file.unlink()
    else:
      _keep(part, step)


def join(run: epath.Path) -> None:
  """Puts all lines into metrics.jsonl, and removes the pieces."""
  pieces = [part.file for part in _parts(run) if part.first]
  if not pieces:
    return
  with whole_file(run / FILE) as partial, partial.open("w") as file:
    file.writelines(line + "\n" for line in read_lines(run))
  for piece in pieces:
    piece.unlink()


class FileLines:
  """Appends lines to the metrics.jsonl of a run on a disk.

  Args:
    run: the run's folder.
    step: the step after which the run goes on; later lines are dropped.
  """

  def __init__(self, run: epath.Path, step: int):
    drop_after(run, step)
    join(run)  # a run that was copied from a store while it trained there
    self._file = (run / FILE).open("a")

  def write(self, _: int, line: str) -> None:
    """Writes the line of a step."""
    self._file.write(line + "\n")
    self._file.flush()

  def flush(self) -> None:
    """Does nothing: each line was written."""

  def close(self) -> None:
    self._file.close()


class StoreLines:
  """Writes lines to pieces in a store.

  Args:
    run: the run's folder.
    step: the step after which the run goes on; later lines are dropped.
    uploads: writes the pieces.
  """

  def __init__(self, run: epath.Path, step: int, uploads: Uploads):
    drop_after(run, step)
    self._run, self._uploads = run, uploads
    self._lines: list[str] = []  # of the newest piece
    self._flushed = 0  # how many of them

  def write(self, step: int, line: str) -> None:
    """Adds the line of a step to the newest piece."""
    if not self._lines:
      self._piece = self._run / FOLDER / f"{step:012}.jsonl"
    self._lines.append(line + "\n")

  def flush(self) -> None:
    """Starts to write the newest piece."""
    if len(self._lines) == self._flushed:
      return
    content = "".join(self._lines).encode()
    self._uploads.start(self._piece, content)
    self._flushed = len(self._lines)
    if len(content) >= PIECE:
      self._lines, self._flushed = [], 0

  def close(self) -> None:
    """Does nothing: no file is open."""


def open_lines(
  run: epath.Path, step: int, uploads: Uploads
) -> FileLines | StoreLines:
  """Opens the lines of a run to write those after a step."""
  if is_remote(run):
    return StoreLines(run, step, uploads)
  return FileLines(run, step)


class _Part(NamedTuple):
  """A file of lines, and the step of its first; 0 for metrics.jsonl."""

  first: float
  file: epath.Path


def _parts(run: epath.Path) -> list[_Part]:
  whole = [_Part(0, run / FILE)] if (run / FILE).exists() else []
  pieces = [x for x in entries(run / FOLDER) if x.stem.isdecimal()]
  return whole + sorted(_Part(int(x.stem), x) for x in pieces)


def _read(part: _Part, until: float) -> Iterator[str]:
  """Yields the whole lines of a file whose steps are before `until`."""
  with part.file.open() as file:
    for line in file:
      step = _step(line)
      if step is not None and step < until:
        yield line.rstrip("\n")


def _step(line: str) -> int | None:
  """Returns the step of a line; None if it is only part of one."""
  try:
    return json.loads(line)["step"] if line.endswith("\n") else None
  except (ValueError, KeyError, TypeError):
    return None


def _keep(part: _Part, step: int) -> None:
  """Keeps the lines of a file until this step, and writes it if any are not."""
  kept = "".join(line + "\n" for line in _read(part, until=step + 1))
  if kept != part.file.read_text():
    with whole_file(part.file) as partial:
      partial.write_text(kept)
