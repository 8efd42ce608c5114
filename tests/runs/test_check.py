"""Places of a run that this machine cannot read are told by name."""

import json
import pathlib
import sys

import pytest

from jaxsae import overrides
from jaxsae.errors import RunError
from jaxsae.runs import check

EXPERIMENT = """
import json, pathlib
from jaxsae import overrides
from jaxsae.train.config.run import TrainConfig
data = pathlib.Path(__file__).with_suffix(".json").read_text()
config = overrides.from_json(TrainConfig, json.loads(data))
"""


@pytest.fixture
def lacking(config, replace, tmp_path):
  """lacking(lm="x"): the problems of a run with these settings."""
  config = replace(config, data__cache=str(tmp_path / "cache"))
  return lambda **fields: check.problems([replace(config, **fields)])


def test_a_run_that_has_everything_lacks_nothing(lacking):
  assert lacking() == []
  assert lacking(lm="gemma2-tiny", data__source="python-stdlib") == []


@pytest.mark.parametrize(
  "field, flag", [("lm", "lm"), ("data__source", "data.source")]
)
@pytest.mark.parametrize("name", ["none", "a b", "it's $(touch x)"])
def test_a_place_that_is_not_there_is_named(
  lacking, tmp_path, field, flag, name
):
  place = tmp_path / name
  (problem,) = lacking(**{field: str(place)})
  assert problem.startswith(f"--{flag}={place}: ")
  assert "does not exist" in problem and "\n" not in problem


def test_a_folder_without_weights_or_text_is_named(lacking, tmp_path):
  (tmp_path / "empty").mkdir()
  place = str(tmp_path / "empty")
  weights, text = lacking(lm=place, data__source=place)
  assert weights.startswith(f"--lm={place}: ") and "config.json" in weights
  assert text.startswith(f"--data.source={place}: ")


def test_files_that_cannot_be_read_are_named(lacking, texts, monkeypatch):
  """The superuser can read everything, so the answer is put in its mouth."""
  monkeypatch.setattr(
    check.os, "access", lambda path, mode: not str(path).endswith("007.txt")
  )
  (problem,) = lacking()
  assert problem.endswith(f"{texts}/007.txt is not readable")


def test_folders_that_cannot_be_made_are_named(lacking, tmp_path):
  (tmp_path / "file").touch()
  place = tmp_path / "file" / "run"
  assert lacking(workdir=str(place)) == [
    f"--workdir={place}: {tmp_path / 'file'} is not writable"
  ]


def test_errors_of_storage_libraries_are_problems(lacking, monkeypatch):
  """A bucket that does not answer raises what its library likes."""

  class Denied(Exception):
    pass

  def refuse(path, remedy):
    raise Denied("403,\n no permission")

  monkeypatch.setattr(check, "check_writable", refuse)
  expected = ["--workdir=gs://b/r: Denied: 403, no permission"]
  assert lacking(lm="gemma2-tiny", workdir="gs://b/r") == expected


def test_a_bucket_that_does_not_answer_is_no_problem_of_the_machine(
  lacking, monkeypatch
):
  def silent(path, remedy):
    raise RunError(f"{path} did not answer")

  monkeypatch.setattr(check, "check_writable", silent)
  with pytest.raises(RunError, match="gs://b/r did not answer"):
    lacking(lm="gemma2-tiny", workdir="gs://b/r")


def test_the_experiment_is_read_with_its_flags(
  config, tmp_path, capsys, monkeypatch
):
  monkeypatch.setattr(sys, "path", list(sys.path))
  file = tmp_path / "toy.py"
  file.write_text(EXPERIMENT)
  file.with_suffix(".json").write_text(json.dumps(overrides.to_json(config)))
  check.main([str(file), f"--lm={tmp_path}/none"])
  (problem,) = json.loads(capsys.readouterr().out)
  assert problem == f"--lm={tmp_path}/none: it does not exist"
  with pytest.raises(SystemExit, match="2"):
    check.main([str(file), "--lmm=x"])
  assert "--lmm" in capsys.readouterr().err


def test_runs_of_a_grid_share_their_folder(tmp_path, capsys, monkeypatch):
  monkeypatch.setattr(sys, "path", list(sys.path))
  root = pathlib.Path(check.__file__).parents[2]
  (tmp_path / "file").touch()
  check.main(
    [
      str(root / "experiments" / "gemma_scope_2b.py"),
      *(f"--workdir={tmp_path}/file/runs", "--lm=gemma2-tiny", "--shard=1/2"),
      f"--data.source={tmp_path}/none",
    ]
  )
  text, workdir = json.loads(capsys.readouterr().out)
  assert text.startswith(f"--data.source={tmp_path}/none: ")
  assert workdir.startswith(f"--workdir={tmp_path}/file/runs: ")


def test_an_experiment_of_another_form_is_not_asked(tmp_path, capsys):
  (tmp_path / "own.py").write_text("config = 'mine'\n")
  check.main([str(tmp_path / "own.py"), "--anything=goes"])
  assert json.loads(capsys.readouterr().out) == []
