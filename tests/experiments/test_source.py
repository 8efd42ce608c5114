"""Experiments on real models need text, and their error says so."""

import pathlib

import pytest

FOLDER = pathlib.Path(__file__).parents[2] / "experiments"
NAMES = sorted(path.stem for path in FOLDER.glob("gemma*.py"))


@pytest.mark.parametrize("name", NAMES)
def test_the_error_without_text_names_the_flag(command, tmp_path, name):
  status, _, err = command(name)
  assert status == 2
  assert err.startswith("error: data.source is empty; give --data.source=DIR")
  assert err.count("\n") == 1 and not (tmp_path / "runs").exists()
