"""Faults of the text are printed once, counted in the log, or refused."""

import json
import pathlib
import random
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from etils import epath

from jaxsae import data
from jaxsae import lm as lms
from jaxsae.errors import UserError
from jaxsae.lm import Site
from jaxsae.train.loop import train
from jaxsae.train.process import corpus_check as checks

pytestmark = pytest.mark.slow


@pytest.fixture
def source(texts, tmp_path):
  """Writes texts to be changed: 200 longer than a row, and some with faults."""
  folder = tmp_path / "source"
  shutil.copytree(texts, folder)
  (folder / "bad.txt").write_bytes(b"caf\xe9")
  (folder / "blank.txt").write_text(" \n")
  (folder / "empty.txt").write_text("")
  (folder / "same.txt").write_text((folder / "007.txt").read_text())
  (folder / "short.txt").write_text("the cat")
  (folder / "picture.png").write_bytes(b"")
  return folder


@pytest.fixture
def small(config, replace, source):
  """Makes a config of one autoencoder and two steps."""
  return replace(
    config,
    data__source=str(source),
    tokens=2 * 512,
    sae__sites=(Site("resid", 0),),
    sae__target_l0=(4.0,),
  )


def open_corpus(config):
  return data.open_corpus(config.data, lms.load_lm(config.lm).tokenizer)


@pytest.fixture
def run(tmp_path):
  return epath.Path(tmp_path / "run")


def lines(config):
  text = (pathlib.Path(config.workdir) / "metrics.jsonl").read_text()
  return [json.loads(line) for line in text.splitlines()]


def data_of(line):
  return {k: v for k, v in line.items() if k.startswith("data/")}


def test_faults_are_printed_once_and_counted_in_every_line(
  small, source, capsys
):
  train(small)
  found = lines(small)
  assert len(found) == 2
  for line in found:
    assert data_of(line) == {
      "data/unreadable": 1,
      "data/empty": 2,
      "data/duplicates": 1,
      "data/longer": 200,
    }
  (line,) = [x for x in capsys.readouterr().out.splitlines() if "left out" in x]
  assert line == (
    "201 documents, 6 of them held out, 200 longer than a row of 16 tokens"
    " (they go on in the next); left out: 1 unreadable (bad.txt: is not UTF-8"
    " (at byte 3)), 2 empty, 1 duplicates, 1 .png"
  )
  (source / "bad.txt").write_text("it is text now")
  with pytest.raises(UserError, match=r"1 files new \(bad\.txt\)"):
    train(small)


def test_a_truncated_shard_is_an_error(small, source, replace):
  small = replace(small, data__text_beside_tables=True)
  shard = source / "shard-00001.parquet"
  pq.write_table(pa.table({"text": [f"the cat {i}" for i in range(99)]}), shard)
  whole = shard.read_bytes()
  shard.write_bytes(whole[: len(whole) // 2])
  with pytest.raises(
    UserError, match=r"shard-00001\.parquet is not a readable"
  ):
    train(small)
  assert not pathlib.Path(small.workdir).exists()
  shard.write_bytes(whole)
  assert len(open_corpus(small).documents) == 201 + 99


def test_texts_left_out_beside_tables_are_named(small, source, replace):
  pq.write_table(pa.table({"text": ["one", "two"]}), source / "a.parquet")
  small = replace(small, data__held_out=0.0)
  said = checks.summary(open_corpus(small))
  assert said.startswith("2 documents") and "(000.txt; " in said
  assert "beside tables" in said and "--data.text_beside_tables=true" in said
  both = replace(small, data__text_beside_tables=True)
  assert len(open_corpus(both).documents) == 201 + 2
  assert "beside tables" not in checks.summary(open_corpus(both))


def test_near_duplicates_across_the_split_are_told(small, tmp_path, replace):
  draw = random.Random(0)
  words = [f"w{draw.randrange(10**6)}" for _ in range(100 * 60)]
  texts = [" ".join(words[i : i + 60]) for i in range(0, len(words), 60)]
  folder = tmp_path / "unlike"
  folder.mkdir()
  for i, text in enumerate(texts):
    (folder / f"{i}.txt").write_text(text)
  small = replace(small, data__source=str(folder), data__held_out=0.3)
  assert not list(checks.notes(open_corpus(small)))
  for i, text in enumerate(texts):
    (folder / f"{i}-copy.txt").write_text(f"{text} with another end")
  (line,) = checks.notes(open_corpus(small))
  assert "near-duplicates" in line and "held-out" in line


def test_text_without_faults_counts_none(config):
  counts = open_corpus(config).counts
  assert counts.pop("longer") == 200
  assert set(counts.values()) == {0}


def change(source):
  (source / "000.txt").write_text("the cat ran")
  (source / "001.txt").unlink()
  (source / "new.txt").write_text("a new cat")


NAMED = "1 files changed (000.txt), 1 files gone (001.txt), 1 files new"


@pytest.mark.parametrize(
  ("most", "says"), [(10**6, NAMED), (10, "it had 201 documents, ")]
)
def test_text_that_changed_is_refused_and_named(
  small, source, run, monkeypatch, most, says
):
  monkeypatch.setattr(checks, "MOST", most)
  checks.check(run, open_corpus(small))
  kept = {name: (source / name).read_text() for name in ("000.txt", "001.txt")}
  change(source)
  with pytest.raises(UserError) as refused:
    checks.check(run, open_corpus(small))
  for part in (str(run), says, "Put the text back", "--workdir=DIR"):
    assert part in str(refused.value)
  (source / "new.txt").unlink()
  for name, text in kept.items():
    (source / name).write_text(text)
  checks.check(run, open_corpus(small))


def test_a_row_moved_within_a_table_is_a_change(small, run, tmp_path, replace):
  table = tmp_path / "table.parquet"
  rows = [f"the cat sat on mat {i} and then it ran" for i in range(200)]
  small = replace(small, data__source=str(table))
  pq.write_table(pa.table({"text": rows}), table)
  checks.check(run, open_corpus(small))
  pq.write_table(pa.table({"text": ["", *rows]}), table)
  with pytest.raises(UserError, match=r"1 files changed \(table\.parquet\)"):
    checks.check(run, open_corpus(small))


def test_a_corrupted_record_is_named(small, run):
  checks.check(run, open_corpus(small))
  (run / "corpus.json").write_text("{}")
  with pytest.raises(UserError, match=r"corpus\.json cannot be read"):
    checks.check(run, open_corpus(small))


def test_a_run_without_a_record_of_its_text_gets_none(small, run):
  """The text may have changed since, which only the data position shows."""
  (run / "checkpoints").mkdir(parents=True)
  checks.check(run, open_corpus(small))
  assert not (run / "corpus.json").exists()
