"""Files of benchmarks are read by their columns; others are told."""

import json

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from jaxsae.errors import UserError
from jaxsae.evals.downstream.text_files import read_texts

ROWS = [("one\ntwo", 1), ("three, four", 0), ('"five"', 1), (None, 0)]


def columns(text, label):
  return pa.table(
    {
      text: [t for t, _ in ROWS],
      label: [n for _, n in ROWS],
      "prompt_len": [3] * 4,
    }
  )


def write_csv(path, table, compression=None):
  with (
    pa.CompressedOutputStream(path, compression)
    if compression
    else open(path, "wb") as sink
  ):
    pyarrow.csv.write_csv(table, sink)


@pytest.mark.parametrize(
  ("name", "compression"),
  [("a.csv", None), ("a.csv.zst", "zstd"), ("a.csv.gz", "gzip")],
)
def test_csv_of_sae_probes(tmp_path, name, compression):
  write_csv(str(tmp_path / name), columns("prompt", "target"), compression)
  (found,) = read_texts(tmp_path).sets
  assert found.name == "a"
  assert list(found.texts)[:3] == ["one\ntwo", "three, four", '"five"']
  assert list(found.labels)[:3] == ["1", "0", "1"]
  assert found.pool == "last"


@pytest.mark.parametrize("form", ["lines", "list"])
def test_json(tmp_path, form):
  rows = columns("text", "label").to_pylist()
  lines = "\n".join(map(json.dumps, rows))
  (tmp_path / "b.json").write_text(
    json.dumps(rows) if form == "list" else lines
  )
  (found,) = read_texts(tmp_path / "b.json").sets
  assert list(found.labels) == ["1", "0", "1"]
  assert found.pool == "mean"


def test_a_folder_of_parquet_files_keeps_its_split(tmp_path):
  folder = tmp_path / "bios" / "data"
  folder.mkdir(parents=True)
  table = columns("hard_text", "profession")
  for name in ("train-00000-of-00002", "train-00001-of-00002", "test-0", "dev"):
    pa.parquet.write_table(table, folder / f"{name}.parquet")
  (found,) = read_texts(tmp_path).sets
  assert found.name == "bios"
  assert sorted(found.is_test) == [False] * 6 + [True] * 3


def test_only_classes_that_are_probed_are_kept(tmp_path):
  labels = [label for n, label in enumerate("abcdefgh", 2) for _ in range(n)]
  pa.parquet.write_table(
    pa.table({"prompt": list(map(str, range(len(labels)))), "target": labels}),
    tmp_path / "many.parquet",
  )
  (found,) = read_texts(tmp_path).sets
  assert set(found.labels) == set("defgh")


def test_what_is_no_labelled_text_is_left_out_and_told(tmp_path):
  write_csv(tmp_path / "good.csv", columns("prompt", "target"))
  write_csv(tmp_path / "other.csv", columns("sentence", "answer"))
  (tmp_path / "damaged.parquet").write_bytes(b"PAR1 no")
  (tmp_path / "deep.json").write_text("[" * 100_000)
  (tmp_path / "empty.csv").write_text("")
  numbers = pa.table(
    {"prompt": list("abc") * 30, "target": [i / 7 for i in range(90)]}
  )
  write_csv(tmp_path / "number.csv", numbers)
  (tmp_path / "notes.txt").write_text("no data")
  found = read_texts(tmp_path)
  assert [texts.name for texts in found.sets] == ["good"]
  assert found.left_out.keys() == {
    "other",
    "damaged",
    "deep",
    "empty",
    "number",
  }
  assert "sentence" in found.left_out["other"]
  assert "90 distinct labels" in found.left_out["number"]


def test_a_folder_without_any_is_refused(tmp_path):
  with pytest.raises(UserError, match="prompt and target"):
    read_texts(tmp_path)
  with pytest.raises(UserError, match="does not exist"):
    read_texts(tmp_path / "nowhere")
