"""Experiment files written before names moved still work."""

import dataclasses
import os
import pathlib
import subprocess
import sys

import pytest

import jaxsae
from jaxsae import formats, runs, train
from jaxsae.renamed import forward

pytestmark = pytest.mark.slow

ROOT = pathlib.Path(__file__).parents[1]
SAVED = ROOT / "tests/saved/quickstart_2026_11.py"


def test_a_saved_experiment_file_trains_and_names_what_moved(
  tmp_path, texts, lm_path
):
  done = subprocess.run(
    [
      sys.executable,
      str(SAVED),
      f"--workdir={tmp_path / 'run'}",
      f"--lm={lm_path}",
      f"--data.source={texts}",
      f"--data.cache={tmp_path / 'cache'}",
      "--data.context=16",
      "--sae.sites=resid.1",
      "--sae.widths=64",
      "--sae.target_l0=4,8",
      "--bucket.microbatches=4",
      "--bucket.rows=8",
      "--bucket.update_tokens=64",
      "--tokens=1024",
      "--eval.batch=8",
      "--eval.batches=2",
      "--eval.loss_batches=1",
    ],
    env={**os.environ, "PYTHONPATH": str(ROOT)},
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  assert (tmp_path / "run/report/index.html").exists()
  for name in ("main", "export", "explore"):
    assert f"jaxsae.train.{name} is now jaxsae.runs.{name}" in done.stderr


def test_an_old_name_is_an_alias_of_the_new():
  assert train.Grid is runs.Grid and jaxsae.export is formats


def test_a_new_name_is_printed_once(capsys):
  find = forward("tests.somewhere", {"Grid": "jaxsae.runs.Grid"})
  assert find("Grid") is find("Grid") is runs.Grid
  said = capsys.readouterr().err
  assert said.count("tests.somewhere.Grid") == said.count("\n") == 1
  assert "jaxsae.runs.Grid" in said


def test_a_name_that_never_existed_is_an_attribute_error():
  with pytest.raises(AttributeError, match="maim"):
    _ = train.maim


def test_the_rows_of_a_grid_are_now_its_parts(capsys):
  part = runs.GridPart("16k", ("resid",), (3,), (16_384,), (8,), 4096)
  assert train.Row is runs.Row is runs.GridPart
  new = runs.Grid("runs/x", "gemma2-2b-pt", parts=(part,))
  assert "Grid(" not in capsys.readouterr().err
  for _ in range(2):
    old = runs.Grid("runs/x", "gemma2-2b-pt", rows=(part,))
    assert old == new and old.configs() == new.configs()
  said = capsys.readouterr().err
  assert said.count("Grid(parts=") == said.count("\n") == 1
  assert dataclasses.replace(new, rows=()) == dataclasses.replace(new, parts=())
