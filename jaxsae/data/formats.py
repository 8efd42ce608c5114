"""File formats of text: plain text, Parquet, Arrow and ArrayRecord.

Every reader turns one file into chunks. A chunk knows its number of documents
before any of them is loaded, so that a few can be chosen among many.
"""

import contextlib
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from jaxsae.errors import UserError

TEXT_SUFFIXES = (".txt", ".md", ".rst", ".py")
RECORDS_AT_ONCE = 1024
BOOK_CHARACTERS = 8192

Value = bytes | str | None  # None is a null in a table


@dataclass(frozen=True)
class Chunk:
  """Consecutive documents of one file."""

  count: int
  load: Callable[[], Iterator[Value]]


def chunks(path: str, column: str) -> list[Chunk]:
  """Splits a file into chunks by its suffix; other suffixes are plain text."""
  suffix = os.path.splitext(path)[1].lower()
  if suffix == ".parquet":
    return _parquet(path, column)
  if suffix == ".arrow":
    return _arrow(path, column)
  if suffix in (".array_record", ".arrayrecord"):
    return _array_record(path)
  return [Chunk(1, partial(_file_bytes, path))]


def is_table(path: str) -> bool:
  """Returns whether a file holds many documents, numbered from 0."""
  suffix = os.path.splitext(path)[1].lower()
  return suffix in (".parquet", ".arrow", ".array_record", ".arrayrecord")


def is_known(path: str) -> bool:
  """Returns whether files with this suffix are read in a folder."""
  return is_table(path) or path.lower().endswith(TEXT_SUFFIXES)


def book(path: str, text: str) -> list[Chunk]:
  """Splits a lone text file into sections at blank lines, or else at lines.

  One document cannot be divided into training and held-out text; the sections
  of a book can. Joined together they are the text again.
  """
  ends = [m.end() for m in re.finditer(r"\n[ \t\r]*\n\s*", text)]
  if not ends:
    ends = [m.end() for m in re.finditer("\n", text)]
  starts = [0]
  for end in ends:
    if end - starts[-1] >= BOOK_CHARACTERS and end < len(text):
      starts.append(end)
  sections = [
    text[a:b] for a, b in zip(starts, [*starts[1:], len(text)], strict=True)
  ]
  return [Chunk(len(sections), partial(iter, sections))]


def _file_bytes(path: str) -> Iterator[bytes]:
  with open(path, "rb") as file:
    yield file.read()


def _parquet(path: str, column: str) -> list[Chunk]:
  import pyarrow.parquet as pq

  with _naming(path, "parquet"):
    file = pq.ParquetFile(path, page_checksum_verification=True)
    _check_column(path, file.schema_arrow, column)
    groups = range(file.metadata.num_row_groups)
    sizes = [file.metadata.row_group(g).num_rows for g in groups]

  def load(group):
    with _naming(path, "parquet"):
      for batch in file.iter_batches(
        RECORDS_AT_ONCE, row_groups=[group], columns=[column]
      ):
        yield from _strings(batch.column(0))

  return [Chunk(sizes[g], partial(load, g)) for g in groups]


def _arrow(path: str, column: str) -> list[Chunk]:
  import pyarrow as pa

  with _naming(path, "arrow"):
    data = pa.memory_map(path)
    try:
      table = pa.ipc.open_file(data).read_all()
    except pa.ArrowInvalid:  # the stream format has no footer
      data.seek(0)
      table = pa.ipc.open_stream(data).read_all()
    _check_column(path, table.schema, column)
    batches = table.select([column]).to_batches()

  def load(batch):
    with _naming(path, "arrow"):
      batch.validate(full=True)  # offsets of an untrusted file may be wrong
      yield from _strings(batch.column(0))

  return [Chunk(b.num_rows, partial(load, b)) for b in batches]


def _array_record(path: str) -> list[Chunk]:
  from array_record.python.array_record_module import ArrayRecordReader

  def load(start, stop):
    with _naming(path, "ArrayRecord"):
      reader = ArrayRecordReader(path)
      records = reader.read(start, stop)
      if len(records) != stop - start or not reader.ok():
        raise ValueError("a chunk is damaged")
      reader.close()
      yield from records

  with _naming(path, "ArrayRecord"):
    reader = ArrayRecordReader(path)
    if not reader.ok():
      raise ValueError("it is truncated or not an ArrayRecord")
    count = reader.num_records()
    reader.close()
  return [
    Chunk(min(RECORDS_AT_ONCE, count - start), partial(load, start, stop))
    for start in range(0, count, RECORDS_AT_ONCE)
    for stop in [min(start + RECORDS_AT_ONCE, count)]
  ]


def _check_column(path: str, schema, column: str) -> None:
  import pyarrow as pa

  if column not in schema.names:
    raise UserError(
      f"{path} has no column {column!r}; set text_column to one of: "
      + ", ".join(schema.names)
    )
  kind = schema.field(column).type
  value = kind.value_type if pa.types.is_dictionary(kind) else kind
  if not (pa.types.is_string(value) or pa.types.is_large_string(value)):
    raise UserError(
      f"column {column!r} of {path} holds {kind}, not text; set text_column "
      "to a column of strings"
    )


def _strings(column) -> Iterator[Value]:
  """Yields strings; one that is not UTF-8 stays bytes, to be named later."""
  for value in column:
    try:
      yield value.as_py()
    except UnicodeDecodeError as error:
      yield error.object


@contextlib.contextmanager
def _naming(path: str, kind: str):
  """Raises a library's error about a damaged file as one UserError."""
  try:
    yield
  except UserError:
    raise
  except (OSError, ValueError, LookupError, RuntimeError) as error:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    raise UserError(
      f"{path} is not a readable {kind} file ({reason}); make it again or "
      "take it out of the source"
    ) from error
