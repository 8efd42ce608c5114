"""Experiments on real models do not come with text, and say so."""

import pathlib

import pytest

FOLDER = pathlib.Path(__file__).parents[2] / "experiments"
NAMES = sorted(path.stem for path in FOLDER.glob("gemma*.py"))


@pytest.mark.parametrize("name", NAMES)
def test_without_text_it_says_what_to_give(command, tmp_path, name):
  status, _, err = command(name)
  assert status == 2
  assert err.startswith("error: data.source is empty; give --data.source=DIR")
  assert err.count("\n") == 1 and not (tmp_path / "runs").exists()
