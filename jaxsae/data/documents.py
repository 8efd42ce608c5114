"""Reads a source of text as an ordered sequence of named documents.

Files are sorted by relative path, so the order is the same on every machine.
"""

import collections
import os
import stat
import sysconfig
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from jaxsae.data import formats, suffixes
from jaxsae.errors import UserError, first_few, is_of_file
from jaxsae.files import expanded, is_remote

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

  Hidden files and folders are skipped.

  Attributes:
    root: the folder that names are relative to.
    lone: whether the source has one file only, so an unreadable one is an error
      and a text is divided into sections.
    files: the files, sorted by name.
    unreadable: texts that cannot be read.
    ignored: suffix → number of files that are left out because of it.
    records: paths of those that are made to hold texts.
    other: path of one that is in another format than plain text, if there is.
    beside_tables: names of texts that are left out because there are tables.
  """

  root: str
  lone: bool
  files: list[File] = field(default_factory=list)
  unreadable: list[Unreadable] = field(default_factory=list)
  ignored: collections.Counter[str] = field(default_factory=collections.Counter)
  records: list[str] = field(default_factory=list)
  other: str | None = None
  beside_tables: list[str] = field(default_factory=list)


def list_source(source: str, text_beside_tables: bool = False) -> Listing:
  """Finds the files of a source without reading them.

  Args:
    source: a file, a folder or `STDLIB`.
    text_beside_tables: whether a folder's texts are read where it has tables.

  Raises:
    UserError: the source is missing or has no file of a known kind, or most of
      its text is in a format that is not read.
  """
  check_source(source)
  if source == STDLIB:
    listing = _walk(sysconfig.get_path("stdlib"), _is_python, _NOT_STDLIB)
  else:
    listing = _list_path(expanded(source), text_beside_tables)
  if not listing.files:
    raise UserError(_nothing_to_read(source, listing))
  return listing


def check_source(source: str) -> None:
  """Raises UserError unless the source is there and may be text."""
  if not source:
    raise UserError(
      "data.source is empty; give --data.source=DIR, a folder of text, "
      ".parquet, .arrow or .array_record files to train on"
    )
  if source == STDLIB:
    return
  path = expanded(source)
  if is_remote(path):
    raise UserError(
      f"the data source {source} is not on a disk of this machine, and text is"
      " read from disks; copy it to one, and give its folder"
    )
  if not os.path.exists(path):
    raise UserError(
      f"the data source {source!r} does not exist; give a file, a folder or "
      f"{STDLIB}"
    )
  if os.path.isfile(path) and (reason := suffixes.refusal(path)):
    raise UserError(f"{path} {reason}")


def read_documents(
  listing: Listing, column: str, limit: int | None, seed: int
) -> Iterator[Document | Unreadable]:
  """Reads the documents in order, or `limit` of them chosen by `seed`.

  Raises:
    UserError: a table is damaged, a column is missing, or a lone file is not
      text.
  """
  parts = _parts(listing, column)
  total = sum(part.count for part in parts)
  chosen = np.arange(total)
  if limit is not None and limit < total:
    generator = np.random.default_rng(seed)
    chosen = np.sort(generator.choice(total, limit, replace=False))
  first = 0
  for file, part in zip(listing.files, parts, strict=True):
    begin, end = np.searchsorted(chosen, [first, first + part.count])
    yield from _read_part(listing, file, part, chosen[begin:end] - first)
    first += part.count


def _list_path(source: str, text_beside_tables: bool) -> Listing:
  if os.path.isdir(source):
    listing = _walk(source, formats.is_known, _NO_TEXT)
    if not text_beside_tables:
      _leave_text_beside_tables(listing)
    _check_most_is_read(source, listing)
    if len(listing.files) == 1 and not formats.is_table(listing.files[0].path):
      listing.lone = True
    return listing
  listing = Listing(os.path.dirname(source), lone=True)
  _add(listing, source, os.path.basename(source))
  if listing.unreadable:
    raise UserError(_not_text_message(source, listing.unreadable[0].reason))
  return listing


def _leave_text_beside_tables(listing: Listing) -> None:
  """Leaves out texts where there are tables: they describe them, as a rule."""
  tables = [file for file in listing.files if formats.is_table(file.path)]
  if tables:
    texts = [f.name for f in listing.files if not formats.is_table(f.path)]
    texts += [text.name for text in listing.unreadable]
    listing.files, listing.beside_tables = tables, sorted(texts)
    listing.unreadable = []


def _check_most_is_read(source: str, listing: Listing) -> None:
  """Raises UserError if files that are not read hold more text than the rest.

  Then what would be read is rather what comes with the text than the text.
  """
  skipped = sum(map(os.path.getsize, filter(os.path.isfile, listing.records)))
  read = sum(file.size for file in listing.files)
  if listing.files and skipped > read:
    first = min(listing.records)
    raise UserError(
      f"{source} has {skipped:,} bytes of text in files that are not read, and"
      f" {read:,} in others; {first} {suffixes.refusal(first)}, or give"
      " --data.source a folder that has only text to read"
    )


def _walk(
  root: str, is_wanted: Callable[[str], bool], skip: set[str]
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
      if is_wanted(name):
        _add(listing, path, os.path.relpath(path, root))
      else:
        _ignore(listing, path)
  listing.files.sort(key=lambda file: file.name)
  return listing


def _is_python(name: str) -> bool:
  return name.endswith(".py")


def _ignore(listing: Listing, path: str) -> None:
  suffix = suffixes.suffix_of(os.path.basename(path))
  listing.ignored[suffix] += 1
  if suffixes.holds_records(suffix):
    listing.records.append(path)
  if listing.other is None and suffixes.refusal(path):
    listing.other = path


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
    if not is_of_file(error):
      raise formats.cannot_read(path, error) from error
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


def _parts(listing: Listing, column: str) -> list[formats.Part]:
  """Counts the documents of every file.

  Raises:
    UserError: a table has no such column; if others have it, says how many.
  """
  parts, without = [], []
  for file in listing.files:
    try:
      parts.append(_part(listing, file, column))
    except formats.NoColumnError as error:
      without.append(error)
  if without and len(without) < len(listing.files):
    raise UserError(
      f"{len(without):,} of {len(listing.files):,} files have no column"
      f" {column!r}, such as {without[0].path}; take them out of the source"
    )
  if without:
    raise without[0]
  return parts


def _part(listing: Listing, file: File, column: str) -> formats.Part:
  if not listing.lone or formats.is_table(file.path):
    return formats.part(file.path, column)
  return formats.book(_load_lone(file))


def _load_lone(file: File) -> str:
  try:
    return _decode(formats.file_bytes(file.path))
  except OSError as error:
    raise UserError(
      _not_text_message(file.path, str(error.strerror))
    ) from error
  except _NotTextError as error:
    raise UserError(_not_text_message(file.path, str(error))) from error


def _read_part(
  listing: Listing, file: File, part: formats.Part, rows: np.ndarray
) -> Iterator[Document | Unreadable]:
  numbered = formats.is_table(file.path) or listing.lone
  try:
    for row, value in zip(rows, part.load(rows), strict=True):
      name = f"{file.name}#{row}" if numbered else file.name
      yield _document(listing, name, value)
  except OSError as error:
    if not is_of_file(error):  # a text may not be missing by chance
      raise formats.cannot_read(file.path, error) from error
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
  left_out = said_of_ignored(listing.ignored)
  other = min(listing.records, default=listing.other)
  if other is not None:
    advice = f"{other} {suffixes.refusal(other)}"
  else:
    advice = (
      f"a folder needs files that end in {kinds} .parquet .arrow or"
      " .array_record"
    )
  return (
    f"{source} has no text to read ({left_out},"
    f" {len(listing.unreadable)} unreadable); {advice}"
  )


def said_of_ignored(ignored: Mapping[str, int], most: int = 8) -> str:
  """Lists the suffixes of files that were left out, the most frequent first.

  Those that are made to hold texts come before all others.
  """
  rank = lambda item: (not suffixes.holds_records(item[0]), -item[1], item[0])
  counts = [
    f"{count:,} {name}" for name, count in sorted(ignored.items(), key=rank)
  ]
  return first_few(counts, most) if counts else "0 files of other kinds"
