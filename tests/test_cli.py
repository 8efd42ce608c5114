"""The `jaxsae` command works on a finished run."""

import json
import pathlib
import re
import runpy
import shutil
import sys

import numpy as np
import pytest

import jaxsae
from jaxsae import cli, explore, formats, process, runs
from jaxsae.runs.text import corpus_of
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


@pytest.fixture
def trained(config, replace):
  """The folder of a run of one bucket with two autoencoders at one site."""
  train(replace(config, tokens=512, sae__sites=(jaxsae.Site("resid", 1),)))
  return pathlib.Path(config.workdir)


def figures(file):
  return {r["name"]: r for r in json.loads(file.read_text())["results"]}


def test_a_run_is_judged_on_other_text(trained, command, texts, tmp_path):
  """On a copy of the text that is held out, the figures are the same."""
  assert command("eval", trained)[0] == 0
  own = (trained / "eval" / "1.json").read_bytes()
  corpus = corpus_of(runs.open_run(trained))
  held_out = [corpus.documents[i] for i in corpus.held_out.documents]
  other = tmp_path / "Other text"
  other.mkdir()
  for name in held_out:
    shutil.copy(texts / name, other)
  first, _ = runs.open_run(trained).names
  assert command("eval", trained, f"--text={other}", f"--only={first}")[0] == 0
  (record,) = (trained / "eval").glob("1.other-text-*.json")
  whole = figures(trained / "eval" / "1.json")
  assert figures(record) == {first: whole[first]}
  assert (trained / "eval" / "1.json").read_bytes() == own
  status, out, _ = command("explore", trained, f"--text={other}")
  assert status == 0 and out.splitlines()[-1].endswith(
    f"{record.stem[2:]}.html"
  )
  assert figures(record) == whole  # now of both
  assert not (trained / "report" / "index.html").exists()
  before = json.loads(record.read_text())["about"]
  (other / "more.txt").write_text("one more story of a cat and a mat")
  assert command("explore", trained, f"--text={other}")[0] == 0
  after = json.loads(record.read_text())["about"]
  assert before["settings"] == after["settings"]
  assert before["text"] != after["text"]  # so it was evaluated again


def test_an_amount_of_text_and_what_is_shown_of_it(trained, command):
  """A batch has 8 rows of 16 tokens."""
  before = runs.open_run(trained).config.eval
  assert (before.batch, before.batches) == (8, 2)
  name = runs.open_run(trained).names[0]
  found = []
  for tokens in (1, 128, 129):
    words = (f"--tokens={tokens}", f"--only={name}")
    assert command("eval", trained, *words)[0] == 0
    about = json.loads((trained / "eval" / "1.json").read_text())["about"]
    found.append(about["settings"]["batches"])
  assert found == [1, 1, 2]
  shown = ("--contexts=3", "--window=6", f"--only={name}")
  status, out, _ = command("explore", trained, *shown)
  page = trained / "report" / "index.html"
  assert status == 0 and out.splitlines()[-1] == str(page)
  text = page.read_text()
  assert name in text and runs.open_run(trained).names[1] not in text
  kept = 3 + explore.WEAKER
  assert f"[64,{kept},6]" in text  # latents, contexts, tokens


@pytest.mark.parametrize(
  ("words", "says"),
  [
    (["--text=nowhere"], ["'nowhere'", "does not exist"]),
    (["--tokens=0"], ["--tokens=0"]),
    (["--contexts=0"], ["--contexts=0"]),
    (["--window=none"], ["--window=none"]),
    (["--only=resid"], ["--only=resid", "resid.1/64/l0_4"]),
    (["--windows=3"], ["--windows", "did you mean --window?"]),
  ],
)
def test_options_that_cannot_be_are_one_sentence(trained, command, words, says):
  status, _, err = command("explore", trained, *words)
  assert status == 2
  assert err.startswith("error: ") and err.count("\n") == 1
  for word in says:
    assert word in err
  assert not (trained / "eval").exists()


def test_contexts_beyond_memory_are_refused_before_work(
  trained, command, monkeypatch
):
  needed = 2 * 64 * explore.kept_bytes(100 + explore.WEAKER, 9)
  monkeypatch.setattr(process, "memory_limit", lambda: needed - 1)
  words = ("explore", trained, "--contexts=100", "--window=9")
  status, _, err = command(*words)
  assert status == 2 and "--contexts=100" in err and "--window=9" in err
  assert command(*words, "--only=resid.1/64/l0_4")[0] == 0  # as it advises


@pytest.mark.parametrize("action", ["eval", "export", "explore"])
def test_a_damaged_record_is_named(trained, command, action, tmp_path):
  record = trained / "eval" / "1.json"
  record.parent.mkdir()
  record.write_text('{"results": 3}')
  out = [f"--out={tmp_path / 'out'}"] if action == "export" else []
  status, _, err = command(action, trained, *out)
  assert status == 2 and str(record) in err and err.count("\n") == 1
  assert record.read_text() == '{"results": 3}'
  assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("place", ["/etc/passwd/x", "/proc/x", "/proc/x/y"])
def test_an_export_to_nowhere_is_refused(trained, command, place):
  status, _, err = command("export", trained, f"--out={place}")
  assert status == 2 and place in err and "--out=DIR" in err
  assert err.splitlines()[-1].startswith("error: ")


@pytest.mark.parametrize("module", ["jaxsae", "jaxsae.cli"])
def test_it_is_a_module_too(module, monkeypatch, capsys, tmp_path):
  monkeypatch.setattr(sys, "argv", ["jaxsae", "eval", str(tmp_path / "none")])
  if module == "jaxsae.cli":  # as in a process that has not imported it
    monkeypatch.delitem(sys.modules, module)
  with pytest.raises(SystemExit) as stop:
    runpy.run_module(module, run_name="__main__")
  assert stop.value.code == 2
  assert "none is not a run" in capsys.readouterr().err


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


@pytest.mark.parametrize("action", ["export", "convert"])
def test_help_names_the_formats_that_are_written(command, action):
  _, out, _ = command(action, "--help")
  (said,) = re.findall(r"The format to write: (.*?)\.", " ".join(out.split()))
  assert re.split(r", | or ", said) == formats.written()


def test_help_names_the_actions(command):
  status, out, _ = command("--help")
  assert status == 0
  for action in ("eval", "export", "explore", "plan"):
    assert action in out
