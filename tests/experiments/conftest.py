"""Fixtures that load experiment files and run them at toy size."""

import pathlib
import runpy
import sys

import pytest

FOLDER = pathlib.Path(__file__).parents[2] / "experiments"


@pytest.fixture(scope="session")
def load():
  """load("quickstart"): returns the names that the file defines."""
  return lambda name: runpy.run_path(str(FOLDER / f"{name}.py"))


@pytest.fixture
def small(tmp_path, lm_path, texts):
  """Returns flags that bring any experiment to toy size; its sites stay."""
  return [
    f"--lm={lm_path}",
    f"--data.source={texts}",
    f"--data.cache={tmp_path / 'cache'}",
    "--data.context=16",
    "--tokens=1024",
    "--sae.widths=64",
    "--sae.target_l0=4,8",
    "--bucket.microbatches=4",
    "--bucket.rows=8",
    "--bucket.update_tokens=64",
    "--eval.batch=8",
    "--eval.batches=2",
    "--eval.loss_batches=1",
  ]


@pytest.fixture
def command(monkeypatch, capsys, tmp_path):
  """Runs an experiment in tmp_path; returns status, stdout and stderr."""
  monkeypatch.chdir(tmp_path)

  def run(name, *args):
    path = str(FOLDER / f"{name}.py")
    monkeypatch.setattr(sys, "argv", [path, *args])
    try:
      runpy.run_path(path, run_name="__main__")
      status = 0
    except SystemExit as stop:
      status = stop.code
    return status, *capsys.readouterr()

  return run
