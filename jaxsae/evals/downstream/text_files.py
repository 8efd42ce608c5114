"""Labelled texts from local files, laid out as benchmarks publish them.

Each file of a folder is one set of texts, and so is each folder of files:

  NAME.csv, NAME.csv.gz, NAME.csv.zst, NAME.parquet, NAME.jsonl, NAME.json
  NAME/…train….parquet, NAME/…test….parquet   the split that it comes with

The columns tell the benchmark (see `LAYOUTS`): those of sae-probes 0.4.2
(sae_probes/data/cleaned_data/*.csv.zst, sae_probes/utils_data.py), and those of
the data sets of SAEBench's sparse probing (sae_bench/sae_bench_utils/
dataset_info.py and dataset_utils.py of sae-bench 0.6.0).
"""

import dataclasses
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet

from jaxsae.errors import UserError, first_few
from jaxsae.evals.downstream.labelled import LabelledTexts
from jaxsae.evals.downstream.pool import Pool
from jaxsae.files import expanded


class Layout(NamedTuple):
  """The columns of a benchmark's files, and how it pools tokens."""

  text: str
  label: str
  pool: Pool


LAYOUTS = (
  Layout("prompt", "target", "last"),  # sae-probes
  Layout("hard_text", "profession", "mean"),  # LabHC/bias_in_bios
  Layout("text", "category", "mean"),  # canrager/amazon_reviews_mcauley_1and5
  Layout("text", "label", "mean"),  # fancyzhx/ag_news
  Layout("code", "language", "mean"),  # codeparrot/github-code
)
SUFFIXES = (".csv", ".csv.gz", ".csv.zst", ".parquet", ".jsonl", ".json")

_ROWS = 500_000  # of one set
_BYTES = 2**30  # of a file that is read whole
_LABELS = 50  # distinct ones of one set; what has more is no class
_SPLITS = ("train", "test")


@dataclasses.dataclass(frozen=True)
class Found:
  """What the files of a folder hold.

  Attributes:
    sets: the labelled texts.
    left_out: name of a file or folder → why it holds none.
  """

  sets: Sequence[LabelledTexts]
  left_out: Mapping[str, str]


class _UnfitError(Exception):
  """Raised for a file that holds no labelled texts; its message says why."""


def read_texts(path: str | os.PathLike[str]) -> Found:
  """Reads the labelled texts of a file, or of each file and folder in a folder.

  Raises:
    UserError: there are none.
  """
  top = expanded(path)
  if not os.path.exists(top):
    raise UserError(f"{top} does not exist; give a folder of labelled texts.")
  sets, left_out = [], {}
  for name, files in _sources(top).items():
    try:
      sets.append(_read(name, files))
    except _UnfitError as error:
      left_out[name] = str(error)
  if not sets:
    why = [f"{name}: {reason}" for name, reason in left_out.items()]
    raise UserError(
      f"{top} holds no labelled texts ({first_few(why) or 'it has no files'});"
      f" give files that end in {', '.join(SUFFIXES)} with columns such as"
      f" {LAYOUTS[0].text} and {LAYOUTS[0].label}."
    )
  return Found(sets, left_out)


def _sources(top: str) -> dict[str, list[str]]:
  """Returns the files of each set, by its name."""
  if os.path.isfile(top):
    return {_stem(top): [top]}
  found: dict[str, list[str]] = {}
  for entry in sorted(os.scandir(top), key=lambda entry: entry.name):
    if entry.is_dir():
      below = sorted(
        os.path.join(folder, name)
        for folder, _, names in os.walk(entry.path)
        for name in names
        if name.endswith(SUFFIXES) and any(s in name for s in _SPLITS)
      )
      if below:
        found[entry.name] = below
    elif entry.is_file() and entry.name.endswith(SUFFIXES):
      found[_stem(entry.name)] = [entry.path]
  return found


def _stem(path: str) -> str:
  name = os.path.basename(path)
  suffix = max((s for s in SUFFIXES if name.endswith(s)), key=len, default="")
  return name.removesuffix(suffix)


def _read(name: str, files: Sequence[str]) -> LabelledTexts:
  texts, labels, is_test, pool = [], [], [], None
  for file in files:
    layout, found = _read_file(file)
    pool = pool or layout.pool
    texts += [text for text, _ in found]
    labels += [label for _, label in found]
    is_test += [_is_test(file)] * len(found)
  distinct = len(set(labels))
  if not 2 <= distinct <= _LABELS:
    raise _UnfitError(
      f"{distinct:,} distinct labels are no classes to tell apart"
    )
  divided = is_test if any(is_test) and not all(is_test) else None
  whole = LabelledTexts(name, texts, labels, pool or "mean", None, divided)
  kept = np.flatnonzero(np.isin(labels, whole.classes))
  return whole.take(kept.tolist())


def _is_test(file: str) -> bool:
  name = os.path.basename(file)
  return "test" in name and "train" not in name


def _read_file(file: str) -> tuple[Layout, list[tuple[str, str]]]:
  """Returns the layout of a file, and the text and label of each row."""
  rows: list[tuple[str, str]] = []
  try:
    columns, tables = _open(file)
    layout = _layout_of(columns)
    for table in tables:
      pairs = (table[name].to_pylist() for name in (layout.text, layout.label))
      rows += [
        (text, str(label))
        for text, label in zip(*pairs, strict=True)
        if isinstance(text, str) and label is not None
      ]
      if len(rows) > _ROWS:
        raise _UnfitError(f"it has more than {_ROWS:,} rows")
  except (OSError, pa.ArrowException, ValueError, RecursionError) as error:
    raise _UnfitError(" ".join(str(error).split())[:200]) from error
  return layout, rows


Tables = Iterator[pa.RecordBatch] | Sequence[pa.Table]


def _open(file: str) -> tuple[Sequence[str], Tables]:
  """Returns the columns of a file, and its rows, a few at a time."""
  if file.endswith(".parquet"):
    opened = pyarrow.parquet.ParquetFile(file)
    names = opened.schema_arrow.names
    wanted = [x for x in names if any(x in one for one in LAYOUTS)]
    return names, opened.iter_batches(columns=wanted)
  if file.endswith((".json", ".jsonl")):
    if os.path.getsize(file) > _BYTES:
      raise _UnfitError(f"it has more than {_BYTES:,} bytes")
    table = _of_json(file)
    return table.column_names, [table]
  parsing = pyarrow.csv.ParseOptions(newlines_in_values=True)
  opened = pyarrow.csv.open_csv(file, parse_options=parsing)
  return opened.schema.names, iter(opened)


def _of_json(file: str) -> pa.Table:
  """Reads a file of one object per line, or of one list of objects."""
  with open(file, encoding="utf-8") as source:
    if source.read(1) != "[":
      return pyarrow.json.read_json(file)
    source.seek(0)
    return pa.Table.from_pylist(json.load(source))


def _layout_of(columns: Sequence[str]) -> Layout:
  """Returns the layout whose columns are there."""
  for layout in LAYOUTS:
    if {layout.text, layout.label} <= set(columns):
      return layout
  known = [f"{layout.text} and {layout.label}" for layout in LAYOUTS]
  raise _UnfitError(
    f"its columns are {first_few(columns, 6)}, not {' or '.join(known)}"
  )
