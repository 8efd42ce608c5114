"""What people have saved keeps working: experiment files of before the move."""

import os
import pathlib
import subprocess
import sys

import pytest

from jaxsae import runs, train

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


def test_an_old_name_is_the_new_thing_and_is_told_of_once(capsys):
  assert train.Grid is runs.Grid and train.Grid is runs.Grid
  assert capsys.readouterr().err.count("jaxsae.train.Grid") <= 1


def test_a_name_that_never_was_is_an_attribute_error():
  with pytest.raises(AttributeError, match="maim"):
    _ = train.maim
