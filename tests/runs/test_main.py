"""A command lists, selects, trains and resumes several runs."""

import builtins
import importlib
import pathlib
import sys

import pytest

from jaxsae import runs, train
from jaxsae.errors import UserError
from jaxsae.files import is_finished
from jaxsae.lm import Site
from jaxsae.runs import Grid, GridPart, main_each

pytestmark = pytest.mark.slow

# `jaxsae.runs.main` is the function of that name.
mains = importlib.import_module("jaxsae.runs.main")


@pytest.fixture
def configs(config, replace, tmp_path):
  """Makes the configs of three small runs."""
  small = replace(config, tokens=512, sae__sites=(Site("resid", 1),))
  sites = {"early": "attn.0", "late": "mlp.1", "both": "resid.0,resid.1"}
  return {
    name: replace(
      small,
      workdir=str(tmp_path / "runs" / name),
      sae__sites=tuple(map(Site.parse, names.split(","))),
    )
    for name, names in sites.items()
  }


@pytest.fixture
def command(configs, monkeypatch, capsys):
  """Runs an experiment of the three; returns status, stdout and stderr."""

  def run(*args):
    monkeypatch.setattr(sys, "argv", ["three.py", *args])
    try:
      main_each(lambda: configs, "Three runs.")
      status = 0
    except SystemExit as stop:
      status = stop.code
    return status, *capsys.readouterr()

  return run


@pytest.fixture
def single(configs, monkeypatch, capsys):
  """Runs an experiment of one run, which ends with an export and a report."""

  def finish(run):
    out = run.path / "export"
    if not is_finished(out):
      runs.export(run, "gemma_scope", out)
    print(runs.report(run))

  def call(*args):
    monkeypatch.setattr(sys, "argv", ["one.py", *args])
    runs.main(configs["early"], "One run.", then=finish)
    return capsys.readouterr().out

  return call


@pytest.fixture
def trained(monkeypatch):
  """Collects the folders of the runs to train, without training them."""
  folders = []
  monkeypatch.setattr(
    mains, "_train_and_evaluate", lambda config: folders.append(config.workdir)
  )
  return folders


def names(folders):
  return [pathlib.Path(folder).name for folder in folders]


def test_runs_train_one_after_the_other_and_only_once(
  command, configs, tmp_path
):
  status, out, _ = command("--only=late")
  assert status == 0 and "mlp.1/64/l0_8" in out
  assert (tmp_path / "runs" / "late" / "eval" / "1.json").exists()
  assert not (tmp_path / "runs" / "early").exists()

  status, out, _ = command()
  assert status == 0
  assert "run 1 of 3, early …" in out and "run 3 of 3, both …" in out
  assert f"run 2 of 3, late is complete: {tmp_path}/runs/late" in out
  for name in configs:
    assert (tmp_path / "runs" / name / "eval" / "1.json").exists()

  status, out, _ = command()
  assert status == 0
  assert [line.split(":")[0] for line in out.splitlines()] == [
    f"run {i} of 3, {name} is complete" for i, name in enumerate(configs, 1)
  ]


def test_a_complete_run_stays_as_it_is(single, configs):
  path = pathlib.Path(configs["early"].workdir)
  state = lambda: {
    file: file.stat().st_mtime_ns for file in path.rglob("*") if file.is_file()
  }
  first = single()
  before = state()
  assert path / "report" / "index.html" in before
  again = single()
  assert state() == before
  assert f"{path} is complete" in again and str(path / "eval") in again
  assert again.splitlines()[-1] == first.splitlines()[-1]


def test_what_a_complete_run_lacks_is_made(single, configs):
  path = pathlib.Path(configs["early"].workdir)
  page = path / "report" / "index.html"
  single()
  checkpoint = (path / "checkpoints" / "1").stat().st_mtime_ns
  whole = page.read_bytes()
  page.unlink()
  single()
  assert page.read_bytes() == whole
  single("--eval.batches=1")  # other figures, so another page
  assert page.read_bytes() != whole
  assert (path / "checkpoints" / "1").stat().st_mtime_ns == checkpoint


def test_a_list_that_was_stopped_continues(command, monkeypatch, tmp_path):
  with monkeypatch.context() as patch:
    patch.setattr(mains, "evaluate", press_ctrl_c)
    assert command("--shard=1/3")[0] == 130
  folder = tmp_path / "runs" / "both"
  lines = (folder / "metrics.jsonl").read_text()
  status, out, _ = command("--shard=1/3")
  assert status == 0 and "run 1 of 1, both …" in out
  assert (folder / "metrics.jsonl").read_text() == lines  # not trained again
  assert (folder / "eval" / "1.json").exists()


def press_ctrl_c(run):
  raise KeyboardInterrupt


def test_a_complete_run_with_other_settings_is_refused(command, tmp_path):
  assert command("--only=early")[0] == 0
  status, _, err = command("--only=early", "--sae.optim.lr=0.5")
  assert status == 2 and "sae.optim.lr was 0.003 and is 0.5" in err


def test_settings_apply_to_every_run(configs, command, monkeypatch):
  seen = []
  monkeypatch.setattr(mains, "_train_and_evaluate", seen.append)
  assert command("--workdir=elsewhere/x/", "--sae.widths=8")[0] == 0
  assert [config.workdir for config in seen] == [
    f"elsewhere/x/{name}" for name in configs
  ]
  assert {config.sae.widths for config in seen} == {(8,)}
  for config, own in zip(seen, configs.values(), strict=True):
    assert type(config) is type(own) and config.sae.sites == own.sae.sites


def test_a_bucket_may_be_the_parent(configs, command, monkeypatch):
  seen = []
  monkeypatch.setattr(mains, "_run_all", seen.append)
  assert command("--workdir=gs://bucket/x")[0] == 0
  assert seen[0]["late"].workdir == "gs://bucket/x/late"


def test_shares_are_a_partition(configs, command, trained):
  for i in (1, 2):
    assert command(f"--shard={i}/2")[0] == 0
  assert sorted(names(trained)) == sorted(configs)
  assert len(set(trained)) == 3


def test_a_share_without_runs_is_reported(command, trained):
  status, out, _ = command("--shard=4/4")
  assert status == 0 and "more shares than runs" in out and not trained


def test_a_list_trains_nothing(command, trained, tmp_path):
  status, out, _ = command("--list")
  assert status == 0 and not trained and not (tmp_path / "runs").exists()
  lines = [line.split() for line in out.splitlines()]
  starts = [line[:1] for line in lines]
  assert starts.index(["early"]) < starts.index(["late"]) < starts.index(["3"])
  assert ["both", "resid", "0-1", "64", "4", "512"] in [x[:6] for x in lines]
  assert ["3", "in", "all", "8"] in [line[:4] for line in lines]


def test_a_list_has_only_the_selected_runs(command):
  _, out, _ = command("--list", "--only=late")
  assert "late" in out and "early" not in out and "1 in all" in out
  _, out, _ = command("--list", "--shard=1/3")
  assert "both" in out and "early" not in out  # the longest run is dealt first


def test_a_grid_that_cannot_be_split_is_one_sentence(monkeypatch, capsys):
  monkeypatch.setattr(sys, "argv", ["grid.py", "--list"])
  part = GridPart("wide", ("resid",), (2,), (2**20,), (8,), 10**9)
  grid = Grid("runs", "gemma2-2b-pt", (part,), most_parameters=10**9)
  with pytest.raises(SystemExit) as stop:
    main_each(grid.configs)
  err = capsys.readouterr().err
  assert stop.value.code == 2 and err.count("\n") == 1
  assert "wide" in err and "most_parameters=1,000,000,000" in err


@pytest.mark.parametrize(
  ("args", "says"),
  [
    (["--only=lat"], ["--only=lat", "did you mean late?"]),
    (["--only=zzzz"], ["--only=zzzz", "3 runs", "--list"]),
    (["--shard=0/2"], ["--shard=0/2", "counted from 1"]),
    (["--shard=3/2"], ["--shard=3/2", "1/4"]),
    (["--shard=half"], ["--shard=half", "1/4"]),
    (["--only=late", "--shard=1/2"], ["--only", "--shard", "one of them"]),
    (["--lsit"], ["--lsit", "did you mean --list?"]),
    (["--list=maybe"], ["--list=maybe"]),
    (["--sae.sites=resid.7", "--list"], ["resid.7", "layers 0 to 1"]),
    (["--lm=nowhere", "--list"], ["nowhere", "language model"]),
    (["--lm=nowhere", "--shard=1/2"], ["nowhere", "language model"]),
    (["--data.source="], ["--data.source=DIR"]),
    (["late"], ["'late'"]),
  ],
)
def test_mistakes_are_one_sentence_and_status_2(command, tmp_path, args, says):
  status, _, err = command(*args)
  assert status == 2
  assert err.startswith("error: ") and err.count("\n") == 1
  for word in says:
    assert word in err
  assert not (tmp_path / "runs").exists()


def test_help_describes_the_settings(command):
  status, out, _ = command("--help")
  assert status == 0 and "Three runs." in out
  said = " ".join(out.split())
  assert "each run (3 in all; --list names them)" in said
  assert said.index("--shard=") < said.index("settings of each run")
  assert "the defaults of early" in said
  assert out.count("--workdir=") == 1
  for setting in (
    "--list=",
    "--only=",
    "--shard=",
    "--workdir=",
    "--sae.widths",
  ):
    assert setting in out
  assert max(map(len, out.splitlines())) <= 80


@pytest.fixture
def notebook(monkeypatch):
  """Makes this process look like a notebook's kernel."""
  monkeypatch.setattr(builtins, "__IPYTHON__", True, raising=False)
  kernel = ["/lib/ipykernel_launcher.py", "-f", "/run/kernel-7.json"]
  monkeypatch.setattr(sys, "argv", kernel)


def test_a_notebook_is_told_what_to_call(notebook, configs):
  config = configs["early"]
  with pytest.raises(UserError, match=r"train\.train\(config\)") as told:
    runs.main(config)
  with pytest.raises(UserError, match=r"train\.train\(config\)"):
    main_each(lambda: configs)
  assert not pathlib.Path(config.workdir).exists()
  train.train(config)  # as it says
  call = "runs.evaluate(runs.open_run(config.workdir))"
  assert call in str(told.value)
  assert runs.evaluate(runs.open_run(config.workdir))


def test_an_experiment_run_from_a_notebook_has_a_command_line(
  notebook, configs, monkeypatch, capsys
):
  """As by `%run experiments/mine.py --help`."""
  monkeypatch.setattr(sys, "argv", ["experiments/mine.py", "--help"])
  with pytest.raises(SystemExit) as stop:
    runs.main(configs["early"])
  assert stop.value.code == 0 and "--workdir" in capsys.readouterr().out
