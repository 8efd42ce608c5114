"""What the suffixes of files say about formats that are not read as text."""

import os
import re
import shlex

_LINES = (".jsonl", ".ndjson")
_RECORDS = (*_LINES, ".json", ".csv", ".tsv")
_MARKUP = (".htm", ".html", ".xhtml", ".xml", ".ipynb", ".rtf")
_COMPRESSED = {
  ".gz": "gunzip --keep",
  ".zst": "unzstd",
  ".bz2": "bunzip2 --keep",
  ".xz": "unxz --keep",
  ".lz4": "unlz4",
  ".br": "brotli --decompress",
}
_ARCHIVES = {
  ".zip": "unzip",
  ".tar": "tar -xf",
  ".tgz": "tar -xf",
  ".tbz2": "tar -xf",
  ".txz": "tar -xf",
  ".7z": "7z x",
}
_BINARY = (
  *(".pdf", ".ps", ".doc", ".docx", ".odt", ".epub", ".mobi", ".pptx"),
  *(".xls", ".xlsx", ".ods", ".feather", ".orc", ".avro", ".tfrecord"),
  *(".tfrecords", ".msgpack", ".mds", ".warc", ".wet", ".wat", ".lmdb"),
  *(".mdb", ".db", ".sqlite", ".npy", ".npz", ".h5", ".hdf5", ".pkl"),
  *(".pickle", ".pt", ".pth", ".safetensors", ".bin", ".rar"),
)
_TO_TABLE = (
  "import sys, pyarrow.{kind} as r, pyarrow.parquet as w;"
  " w.write_table(r.read_{kind}(sys.argv[1], {options}), sys.argv[2])"
)
# By default pyarrow refuses records of more than a megabyte, and lines in CSV's
# quotes. It does not unpack .xz.
_LONG_RECORDS = "r.ReadOptions(block_size=2**28)"
_OPTIONS = {
  "json": _LONG_RECORDS,
  "csv": f"{_LONG_RECORDS}, r.ParseOptions(newlines_in_values=True)",
}


def suffix_of(name: str) -> str:
  """Returns a file's suffix in small letters, such as `.md` or `.jsonl.gz`.

  Where a name has none, or one that no format has, says so in words.
  """
  stem, last = os.path.splitext(name.lower())
  whole = os.path.splitext(stem)[1] + last if last in _COMPRESSED else last
  for suffix in (whole, last):
    if re.fullmatch(r"(\.[a-z0-9_+-]{1,15})+", suffix, re.ASCII):
      return suffix
  return "with another name" if last else "without suffix"


def holds_records(suffix: str) -> bool:
  """Returns whether files of a suffix are made to hold texts, but not read.

  Such are JSON Lines and text that is compressed.
  """
  inner, last = _parts(suffix)
  if last in _COMPRESSED:
    return inner in (*_RECORDS, ".txt", ".md", ".parquet", ".arrow")
  return last in _LINES


def refusal(path: str) -> str | None:
  """Returns why a file cannot be read as text, and what to do; None if it can.

  Only its name is looked at.
  """
  suffix = suffix_of(os.path.basename(path))
  inner, last = _parts(suffix)
  if last in _COMPRESSED and last != ".xz" and inner in _RECORDS:
    last = inner
  unpack = {**_COMPRESSED, **_ARCHIVES}.get(last)
  if unpack is not None:
    return f"is packed; unpack it, as with `{unpack} {shlex.quote(path)}`"
  if last in (*_LINES, ".csv"):
    return f"is not plain text ({suffix}); {_to_table(path, last)}"
  if last in (*_RECORDS, *_MARKUP, *_BINARY):
    return (
      f"is not plain text ({suffix}); write its texts to .txt files, or to a"
      " .parquet file with a column `text`"
    )
  return None


def _parts(suffix: str) -> tuple[str, str]:
  """Splits `.jsonl.gz` into `.jsonl` and `.gz`; the first may be empty."""
  inner, dot, last = suffix.rpartition(".")
  return inner, dot + last


def _to_table(path: str, last: str) -> str:
  kind = "csv" if last == ".csv" else "json"
  program = _TO_TABLE.format(kind=kind, options=_OPTIONS[kind])
  table = re.sub(r"(?i)\.(jsonl|ndjson|csv)(\.\w+)?$", "", path) + ".parquet"
  names = f"{shlex.quote(path)} {shlex.quote(table)}"
  return (
    f"make a table of it, as with `python -c {shlex.quote(program)} {names}`"
  )
