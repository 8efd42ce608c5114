"""Reads a source of text as an ordered sequence of named documents.

Files are sorted by relative path, so the order is the same on every machine.
"""

import os
import stat
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from jaxsae.data import formats
from jaxsae.errors import UserError

STDLIB = "python-stdlib"
# The second is at the top of a disk's file system, and nobody may look into it.
_NO_TEXT = {"__pycache__", "lost+found"}
_NOT_STDLIB = {"site-packages", "dist-packages", "__pycache__"}


@dataclass(frozen=True)
class Document:
  """A text of the source, with its name."""

  name: str  # path below the source; `path#row` in a table or a lone file
  text: str


@dataclass(frozen=True)
class Unreadable:
  """The name of a text that was left out, and why."""

  name: str
  reason: str


@dataclass(frozen=True)
class File:
  """A file of the source, as it was when the source was listed."""

  path: str
  name: str
  size: int  # bytes
  modified: int  # nanoseconds


@dataclass
class Listing:
  """The files of a source, sorted by name.

  `ignored` counts files whose suffix says that they are not text; hidden
  files and folders are skipped.
  """

  root: str
  lone: bool  # the source is one file, so an unreadable one is an error
  files: list[File] = field(default_factory=list)
  unreadable: list[Unreadable] = field(default_factory=list)
  ignored: int = 0


def list_source(source: str) -> Listing:
  """Finds the files of a source without reading them.

  Raises:
    UserError: the source is missing or has no file of a known kind.
  """
  check_source(source)
  if source == STDLIB:
    listing = _walk(sysconfig.get_path("stdlib"), (".py",), _NOT_STDLIB)
  else:
    listing = _list_path(os.path.expanduser(source))
  if not listing.files:
    raise UserError(_nothing_to_read(source, listing))
  return listing


def check_source(source: str) -> None:
  """Raises UserError unless the source exists; reads nothing."""
  if not source:
    raise UserError(
      "data.source is empty; give --data.source=DIR, a folder of text, "
      ".parquet, .arrow or .array_record files to train on"
    )
  if source != STDLIB and not os.path.exists(os.path.expanduser(source)):
    raise UserError(
      f"the data source {source!r} does not exist; give a file, a folder or "
      f"{STDLIB}"
    )


def read_documents(
  listing: Listing, column: str, limit: int | None, seed: int
) -> Iterator[Document | Unreadable]:
  """Reads the documents in order, or `limit` of them chosen by `seed`.

  Raises:
    UserError: a table is damaged, a column is missing, or a lone file is not
      text.
  """
  parts = [(file, _chunks(listing, file, column)) for file in listing.files]
  total = sum(chunk.count for _, chunks in parts for chunk in chunks)
  chosen = np.arange(total)
  if limit is not None and limit < total:
    generator = np.random.default_rng(seed)
    chosen = np.sort(generator.choice(total, limit, replace=False))
  first = 0
  for file, chunks in parts:
    numbered = formats.is_table(file.path) or listing.lone
    row = 0
    for chunk in chunks:
      begin, end = np.searchsorted(chosen, [first, first + chunk.count])
      wanted = chosen[begin:end] - first
      yield from _read_chunk(listing, file, chunk, wanted, row, numbered)
      first += chunk.count
      row += chunk.count


def _list_path(source: str) -> Listing:
  if os.path.isdir(source):
    return _walk(source, None, _NO_TEXT)
  listing = Listing(os.path.dirname(source), lone=True)
  _add(listing, source, os.path.basename(source))
  if listing.unreadable:
    raise UserError(_not_text_message(source, listing.unreadable[0].reason))
  return listing


def _walk(
  root: str, suffixes: tuple[str, ...] | None, skip: set[str]
) -> Listing:
  """Follows links to folders, but enters every folder only once."""
  listing = Listing(root, lone=False)
  seen = {_identity(root)}

  def unlistable(error):
    raise UserError(
      f"the folder {error.filename} cannot be listed ({error.strerror}), so"
      " its files would be missing; make it readable or take it out of the"
      " source"
    ) from error

  for folder, below, names in os.walk(
    root, onerror=unlistable, followlinks=True
  ):
    below[:] = [
      name
      for name in sorted(below)
      if name not in skip
      and not name.startswith(".")
      and _first_visit(os.path.join(folder, name), seen)
    ]
    for name in names:
      path = os.path.join(folder, name)
      if name.startswith("."):
        continue
      if name.endswith(suffixes) if suffixes else formats.is_known(name):
        _add(listing, path, os.path.relpath(path, root))
      else:
        listing.ignored += 1
  listing.files.sort(key=lambda file: file.name)
  return listing


def _identity(path: str) -> tuple[int, int]:
  status = os.stat(path)
  return status.st_dev, status.st_ino


def _first_visit(path: str, seen: set[tuple[int, int]]) -> bool:
  try:
    identity = _identity(path)
  except (FileNotFoundError, ProcessLookupError):
    return False  # it was there when its folder was listed
  except OSError:
    return True  # the walk meets the error again, and tells it
  new = identity not in seen
  seen.add(identity)
  return new


def _add(listing: Listing, path: str, name: str) -> None:
  name = name.replace(os.sep, "/")
  # A file name may be any bytes; names are stored as UTF-8.
  name = name.encode("utf-8", "backslashreplace").decode()
  try:
    status = os.stat(path)
  except OSError as error:
    _leave_out(listing, path, name, str(error.strerror))
    return
  if not stat.S_ISREG(status.st_mode):  # reading a pipe would wait forever
    _leave_out(listing, path, name, "is not a regular file")
    return
  listing.files.append(File(path, name, status.st_size, status.st_mtime_ns))


def _leave_out(listing: Listing, path: str, name: str, reason: str) -> None:
  """Records an unreadable text; raises UserError if it is a table of many."""
  if formats.is_table(path):
    raise UserError(
      f"{path} cannot be read ({reason}), and it may hold many documents;"
      " repair it or take it out of the source"
    )
  listing.unreadable.append(Unreadable(name, reason))


def _chunks(listing: Listing, file: File, column: str) -> list[formats.Chunk]:
  chunks = formats.chunks(file.path, column)
  if not listing.lone or formats.is_table(file.path):
    return chunks
  text = _load_lone(file, chunks[0])
  return formats.book(file.path, text)


def _load_lone(file: File, chunk: formats.Chunk) -> str:
  try:
    text = _decode(next(chunk.load()))
  except OSError as error:
    raise UserError(
      _not_text_message(file.path, str(error.strerror))
    ) from error
  except _NotTextError as error:
    raise UserError(_not_text_message(file.path, str(error))) from error
  return text


def _read_chunk(listing, file, chunk, wanted, row, numbered):
  if not len(wanted):
    return
  wanted = set(wanted.tolist())
  try:
    for index, value in enumerate(chunk.load()):
      if index in wanted:
        name = f"{file.name}#{row + index}" if numbered else file.name
        yield _document(listing, name, value)
  except OSError as error:
    yield Unreadable(file.name, str(error.strerror))


def _document(listing: Listing, name: str, value: formats.Value):
  try:
    return Document(name, _decode(value))
  except _NotTextError as error:
    if listing.lone:
      raise UserError(_not_text_message(name, str(error))) from error
    return Unreadable(name, str(error))


class _NotTextError(Exception):
  """Raised for a value that is not text; its message says why."""


def _decode(value: formats.Value) -> str:
  if value is None:
    return ""
  if isinstance(value, bytes):
    zero = value.find(b"\0")
    if zero >= 0:
      raise _NotTextError(f"is binary (a zero byte at byte {zero})")
    try:
      return value.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
      raise _NotTextError(f"is not UTF-8 (at byte {error.start})") from error
  zero = value.find("\0")
  if zero >= 0:
    raise _NotTextError(f"is binary (a zero character at {zero})")
  return value


def _not_text_message(name: str, reason: str) -> str:
  return f"{name} {reason}; give a UTF-8 text file"


def _nothing_to_read(source: str, listing: Listing) -> str:
  kinds = " ".join(formats.TEXT_SUFFIXES)
  return (
    f"{source} has no text to read ({listing.ignored} files of other kinds, "
    f"{len(listing.unreadable)} unreadable); a folder needs files that end in "
    f"{kinds} .parquet .arrow or .array_record"
  )
