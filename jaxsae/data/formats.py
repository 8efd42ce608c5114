"""File formats of text: plain text, Parquet, Arrow and ArrayRecord.

Every reader counts a file's documents before it loads any, so that a few can be
chosen among many. A file is open only while it is counted or read.
"""

import contextlib
import errno
import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from jaxsae.errors import RunError, StorageError, UserError, is_of_file

TEXT_SUFFIXES = (".txt", ".md", ".rst", ".py")
TABLE_SUFFIXES = (".parquet", ".arrow", ".array_record", ".arrayrecord")
RECORDS_AT_ONCE = 1024
BOOK_CHARACTERS = 8192

Value = bytes | str | None  # None is a null in a table

# Where a lone text may be cut: the first of these that divides it does.
_CUTS = (
  re.compile(r"\n[ \t\r]*\n\s*"),  # blank lines
  re.compile(r"\n"),
  re.compile(r"[\r\v\f\x1c-\x1e\x85\u2028\u2029]"),  # other ends of lines
  re.compile(r"[.!?…]['\"”’)\]]*\s+|[。！？।]"),  # ends of sentences
  re.compile(r"\s+"),
  re.compile(r"(?s)."),
)


@dataclass(frozen=True)
class Part:
  """The documents of one file.

  Attributes:
    count: their number.
    load: yields those of the given numbers, which count from 0 and ascend.
  """

  count: int
  load: Callable[[np.ndarray], Iterator[Value]]


class NoColumnError(UserError):
  """A table, at `path`, has no column of the name that was asked for."""

  def __init__(self, path: str, message: str):
    super().__init__(f"{path} {message}")
    self.path = path


def part(path: str, column: str) -> Part:
  """Counts the documents in a file of any known kind, by its suffix.

  Raises:
    UserError: the file is damaged or cannot be read, or its column is no text.
    NoColumnError: it has no such column.
  """
  suffix = os.path.splitext(path)[1].lower()
  if suffix == ".parquet":
    return _parquet(path, column)
  if suffix == ".arrow":
    return _arrow(path, column)
  if suffix in TABLE_SUFFIXES:
    return _array_record(path)
  return Part(1, lambda rows: (file_bytes(path) for _ in rows))


def cannot_read(path: str, error: OSError) -> UserError | RunError:
  """Returns the error of a file that the system did not let us read."""
  said = f"{path} cannot be read ({error.strerror})"
  if error.errno in (errno.EMFILE, errno.ENFILE):
    return UserError(f"{said}; allow more, as with `ulimit -n 65536`")
  if is_of_file(error):
    return UserError(f"{said}; make it readable or take it out of the source")
  return StorageError(f"{said}; run the same command again")


def is_table(path: str) -> bool:
  """Returns whether a file holds many documents, numbered from 0."""
  return path.lower().endswith(TABLE_SUFFIXES)


def is_known(path: str) -> bool:
  """Returns whether files with this suffix are read in a folder."""
  return path.lower().endswith((*TABLE_SUFFIXES, *TEXT_SUFFIXES))


def book(text: str) -> Part:
  """Divides a lone text into sections that are the text when joined.

  One document cannot be divided into training and held-out text; the sections
  of a book can. They end at blank lines; where these divide nothing, at lines,
  sentences, words or characters.
  """
  divided = (_sections(text, cut) for cut in _CUTS)
  sections = next((found for found in divided if len(found) > 1), [text])
  return Part(len(sections), lambda rows: (sections[row] for row in rows))


def _sections(text: str, cut: re.Pattern[str]) -> list[str]:
  starts = [0]
  for match in cut.finditer(text):
    end = match.end()
    if end - starts[-1] >= BOOK_CHARACTERS and end < len(text):
      starts.append(end)
  return [
    text[a:b] for a, b in zip(starts, [*starts[1:], len(text)], strict=True)
  ]


def file_bytes(path: str) -> bytes:
  """Reads a whole file."""
  with open(path, "rb") as file:
    return file.read()


def _parquet(path: str, column: str) -> Part:
  import pyarrow.parquet as pq

  opened = partial(pq.ParquetFile, path, page_checksum_verification=True)
  with _naming(path, "parquet"), opened() as file:
    count = file.metadata.num_rows
    every = lambda: _row_groups(file, column, np.arange(count))
    _check_column(path, file.schema_arrow, column, count, every)

  def load(rows):
    with _naming(path, "parquet"), opened() as file:
      yield from _pick(_row_groups(file, column, rows), rows)

  return Part(count, load)


def _row_groups(file, column: str, rows: np.ndarray) -> Iterator[Any]:
  """Yields the row groups that hold some of the rows, in batches.

  Each batch comes with the number of its first row.
  """
  first = 0
  for group in range(file.num_row_groups):
    end = first + file.metadata.row_group(group).num_rows
    begin, stop = np.searchsorted(rows, [first, end])
    batches = file.iter_batches(
      RECORDS_AT_ONCE, row_groups=[group], columns=[column]
    )
    for batch in batches if stop > begin else ():
      yield first, batch.column(0)
      first += len(batch)
    first = end


def _arrow(path: str, column: str) -> Part:
  with _naming(path, "arrow"):
    with _record_batches(path) as (_, batches):
      count = sum(len(batch) for batch in batches)
    with _record_batches(path) as (schema, batches):
      every = lambda: _columns(batches, column)
      _check_column(path, schema, column, count, every)

  def load(rows):
    with _naming(path, "arrow"), _record_batches(path) as (_, batches):
      yield from _pick(_columns(batches, column), rows)

  return Part(count, load)


@contextlib.contextmanager
def _record_batches(path: str) -> Iterator[Any]:
  """Yields the schema and the record batches of either Arrow format."""
  import pyarrow as pa

  with pa.memory_map(path) as data:
    try:
      file = pa.ipc.open_file(data)
      batches = map(file.get_batch, range(file.num_record_batches))
    except pa.ArrowInvalid:  # the stream format has no footer
      data.seek(0)
      file = batches = pa.ipc.open_stream(data)
    yield file.schema, batches


def _columns(batches: Iterable[Any], column: str) -> Iterator[Any]:
  """Yields a column of each batch, with the number of its first row."""
  first = 0
  for batch in batches:
    found = batch.column(batch.schema.names.index(column))
    found.validate(full=True)  # offsets of an untrusted file may be wrong
    yield first, found
    first += len(batch)


def _array_record(path: str) -> Part:
  from array_record.python.array_record_module import ArrayRecordReader

  @contextlib.contextmanager
  def opened():
    with open(path, "rb"):  # the library does not say why it cannot
      pass
    reader = ArrayRecordReader(path)
    if not reader.ok():
      raise ValueError("it is truncated or not an ArrayRecord")
    yield reader
    reader.close()

  def spans(reader, rows):
    for start in range(0, reader.num_records(), RECORDS_AT_ONCE):
      stop = min(start + RECORDS_AT_ONCE, reader.num_records())
      if np.diff(np.searchsorted(rows, [start, stop])):
        records = reader.read(start, stop)
        if len(records) != stop - start or not reader.ok():
          raise ValueError("a chunk is damaged")
        yield start, records

  def load(rows):
    with _naming(path, "ArrayRecord"), opened() as reader:
      yield from _pick(spans(reader, rows), rows)

  with _naming(path, "ArrayRecord"), opened() as reader:
    return Part(reader.num_records(), load)


def _check_column(
  path: str,
  schema,
  column: str,
  count: int,
  batches: Callable[[], Iterator[tuple[int, Any]]],
) -> None:
  """Raises UserError unless a column holds text, or nothing at all.

  A table whose texts are all null often has a column of another type.
  """
  there = [field.name for field in schema if _is_text(field.type)]
  if column not in schema.names and count:
    raise NoColumnError(
      path, f"has no column {column!r}{_columns_advice(there)}"
    )
  if column not in schema.names:
    return
  if schema.names.count(column) > 1:
    raise UserError(
      f"{path} has several columns {column!r}; give them different names, or"
      " take it out of the source"
    )
  kind = schema.types[schema.names.index(column)]
  if not _is_text(kind) and not all(map(_may_be_text, batches())):
    raise UserError(
      f"column {column!r} of {path} holds {kind}, not"
      f" text{_columns_advice(there)}"
    )


def _columns_advice(names: list[str]) -> str:
  if not names:
    return ", and no other holds text; give files with a column of text"
  return f"; set --data.text_column to a column of text: {', '.join(names)}"


def _is_text(kind) -> bool:
  """Returns whether Arrow's name of a type says that it is text."""
  import pyarrow as pa

  if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
    return _is_text(kind.value_type)
  texts = ("string", "large_string", "string_view")
  return str(kind) in (*texts, "binary", "large_binary", "binary_view")


def _may_be_text(numbered: tuple[int, Any]) -> bool:
  """Returns whether the values of a column of an unknown type are text."""
  first = next((v for v in numbered[1].drop_null()), None)
  return first is None or isinstance(first.as_py(), str)


def _pick(
  batches: Iterable[tuple[int, Any]], rows: np.ndarray
) -> Iterator[Value]:
  """Yields the values of some rows from batches with their first rows."""
  picked = 0
  for first, batch in batches:
    begin, end = np.searchsorted(rows, [first, first + len(batch)])
    picked += end - begin
    for row in rows[begin:end].tolist():
      yield _value(batch[row - first])
  if picked < len(rows):
    raise ValueError("it has fewer documents than it had")


def _value(value) -> Value:
  """Returns a record as it is; text that is not UTF-8 stays bytes."""
  if isinstance(value, bytes):
    return value
  try:
    return value.as_py()
  except UnicodeDecodeError as error:
    return error.object


@contextlib.contextmanager
def _naming(path: str, kind: str):
  """Raises a library's error about a file as one UserError.

  Only what is wrong with the file's bytes is told as damage.
  """
  try:
    yield
  except UserError:
    raise
  except (OSError, ValueError, LookupError, RuntimeError) as error:
    if isinstance(error, OSError) and error.errno:
      raise cannot_read(path, error) from error
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    raise UserError(
      f"{path} is not a readable {kind} file ({reason}); make it again or "
      "take it out of the source"
    ) from error
