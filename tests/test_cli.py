"""The `jaxsae` command works on a finished run."""

import json
import pathlib
import sys

import numpy as np
import pytest

import jaxsae
from jaxsae import cli
from jaxsae.train import train

pytestmark = pytest.mark.slow


@pytest.fixture
def command(monkeypatch, capsys):
  """Runs `jaxsae …`; returns status, stdout and stderr."""

  def run(*args):
    monkeypatch.setattr(sys, "argv", ["jaxsae", *map(str, args)])
    try:
      cli.main()
      status = 0
    except SystemExit as stop:
      status = stop.code
    return status, *capsys.readouterr()

  return run


def test_eval_export_and_explore(config, command, tmp_path):
  train(config)
  run = pathlib.Path(config.workdir)

  status, out, _ = command("eval", run)
  assert status == 0 and "attn.0/64/l0_8" in out
  results = json.loads((run / "eval" / "6.json").read_text())["results"]
  assert results[0]["name"] == "resid.1/64/l0_4"

  status, out, _ = command("export", run, f"--out={tmp_path / 'out'}")
  assert status == 0
  files = out.split()
  assert len(files) == 4
  lm = jaxsae.load_lm(config.lm)
  site = jaxsae.Site("resid", 1)
  tokens = np.arange(32).reshape(2, 16) + 10
  x = jaxsae.capture(lm, tokens, site)[site]
  sae = jaxsae.load_sae(next(f for f in files if "/res/" in f))
  assert sae(x).shape == x.shape and 0 < (sae.encode(x) > 0).mean() < 1

  status, out, _ = command("explore", run)
  page = pathlib.Path(out.splitlines()[-1])
  assert status == 0 and page == run / "report" / "index.html"
  assert "resid.1/64/l0_4" in page.read_text()


def test_text_that_is_tokenised_differently_is_refused(config, command):
  train(config)
  record = pathlib.Path(config.workdir) / "policy.json"
  record.write_text(record.read_text().replace('"bos": 2', '"bos": 7'))
  status, _, err = command("eval", config.workdir)
  assert status == 2 and "bos was 7 and is now 2" in err


@pytest.mark.parametrize("action", ["eval", "explore"])
def test_a_folder_that_is_not_a_run_is_an_error(command, tmp_path, action):
  status, _, err = command(action, tmp_path / "nothing")
  assert status == 2 and "is not a run" in err and err.count("\n") == 1


def test_an_export_that_exists_is_refused(config, command, tmp_path):
  train(config)
  out = tmp_path / "out"
  out.mkdir()
  (out / "mine").write_text("precious")
  status, _, err = command("export", config.workdir, f"--out={out}")
  assert status == 2 and "exists" in err
  assert (out / "mine").read_text() == "precious"
  assert [p.name for p in tmp_path.iterdir() if "partial" in p.name] == []


def test_an_unknown_format_is_refused(config, command, tmp_path):
  train(config)
  status, _, err = command(
    "export", config.workdir, "--format=onnx", f"--out={tmp_path / 'out'}"
  )
  assert status == 2 and "onnx" in err and "gemma_scope" in err
  assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
  ("words", "says"),
  [
    ([], ["jaxsae", "explore", "--help"]),
    (["exprot"], ["exprot", "did you mean export?"]),
    (["eval"], ["eval RUN"]),
    (["export", "runs/x"], ["--out=DIR"]),
    (["export", "runs/x", "--ot=y"], ["--ot", "did you mean --out?"]),
    (["explore", "runs/x", "runs/y"], ["'runs/y'"]),
  ],
)
def test_a_command_that_cannot_be_parsed_gives_one_sentence(
  command, words, says
):
  status, _, err = command(*words)
  assert status == 2
  assert err.startswith("error: ") and err.count("\n") == 1
  for word in says:
    assert word in err


def test_settings_may_come_before_the_run(command, tmp_path):
  out = tmp_path / "out"
  status, _, err = command("export", "--out", out, tmp_path / "nothing")
  assert status == 2 and f"{tmp_path / 'nothing'} is not a run" in err


def test_help_of_an_action_lists_its_settings(command):
  status, out, _ = command("export", "--help")
  assert status == 0 and "usage: jaxsae export RUN" in out
  for setting in ("--format=", "--out="):
    assert setting in out


def test_help_names_the_actions(command):
  status, out, _ = command("--help")
  assert status == 0
  for action in ("eval", "export", "explore", "plan"):
    assert action in out
