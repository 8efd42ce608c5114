"""Runs and downloaded autoencoders are probed together, by one command."""

import json

import numpy as np
import pytest

from jaxsae import cli, runs, train
from jaxsae.errors import UserError
from jaxsae.lm import Site
from jaxsae.runs import ProbeConfig
from tests.evals.samples import random_sae

pytestmark = pytest.mark.slow


@pytest.fixture
def tasks(tmp_path):
  """A file as those of sae-probes: stories that end in a cat, or do not."""
  rng = np.random.default_rng(0)
  words = "the cat sat on a mat and then it ran to tell".split()
  lines = ["prompt,target"]
  for i in range(200):
    story = " ".join(rng.choice(words, 6))
    lines.append(f"{story} {'cat' if i % 2 else 'mat'},{i % 2}")
  (tmp_path / "tasks").mkdir()
  (tmp_path / "tasks" / "1_cat.csv").write_text("\n".join(lines))
  return str(tmp_path / "tasks")


@pytest.fixture
def downloaded(tmp_path):
  folder = tmp_path / "downloaded"
  folder.mkdir()
  sae = random_sae(32, 64, 0)
  arrays = {k: np.asarray(v) for k, v in vars(sae).items() if v is not None}
  renamed = {k.replace("w_", "W_"): v for k, v in arrays.items()}
  np.savez(folder / "params.npz", **renamed)
  return str(folder)


def settings(tasks, **others):
  return ProbeConfig(tasks=tasks, k=(1, 2), seeds=2, context=16, **others)


def test_a_downloaded_autoencoder(tasks, downloaded, lm_path, tmp_path):
  out = tmp_path / "figures.json"
  config = settings(tasks, lm=str(lm_path), site="resid.0", out=str(out))
  (result,) = runs.probe([downloaded], config).values()
  assert result.tasks.keys() == {"1_cat"}
  assert result.tasks["1_cat"].dense.auc.value > 0.9
  record = json.loads(out.read_text())
  assert record["about"]["settings"]["k"] == [1, 2]
  assert record["results"][0]["site"] == "resid.0"


@pytest.mark.parametrize(
  ("given", "match"), [({}, "--lm"), ({"lm": "toy"}, "--site")]
)
def test_what_its_files_do_not_say_is_asked_for(
  tasks, downloaded, lm_path, given, match
):
  given = {"lm": str(lm_path)} if given else {}
  with pytest.raises(UserError, match=match):
    runs.probe([downloaded], settings(tasks, **given))


def test_a_run_by_the_command(config, replace, tasks, monkeypatch, capsys):
  sites = (Site("resid", 1),)
  train.train(replace(config, tokens=512, sae__sites=sites))
  words = ["jaxsae", "probe", config.workdir, f"--tasks={tasks}", "--k=1,2"]
  monkeypatch.setattr("sys.argv", [*words, "--seeds=1", "--context=16"])
  cli.main()
  (path,) = [x for x in capsys.readouterr().out.split() if "probing" in x]
  with open(path) as file:
    results = json.load(file)["results"]
  run = runs.open_run(config.workdir)
  assert [result["name"] for result in results] == list(run.names)
  assert path == str(run.path / "eval" / f"{run.step}.probing.json")


def test_nothing_to_probe_is_refused(monkeypatch, capsys):
  monkeypatch.setattr("sys.argv", ["jaxsae", "probe"])
  with pytest.raises(SystemExit) as ended:
    cli.main()
  assert ended.value.code == 2
  assert "jaxsae probe RUN" in capsys.readouterr().err
