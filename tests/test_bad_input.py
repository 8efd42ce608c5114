"""Mistakes at the command line give one sentence and status 2, and no harm."""

import pathlib
import runpy
import shutil
import sys

import pytest

pytestmark = pytest.mark.slow

QUICKSTART = pathlib.Path(__file__).parents[1] / "experiments/quickstart.py"


@pytest.fixture
def quickstart(monkeypatch, capsys, tmp_path, lm_path, texts):
  """Runs the quickstart at toy size; returns its status and its stderr."""

  def run(*overrides):
    monkeypatch.setattr(
      sys,
      "argv",
      [
        str(QUICKSTART),
        f"--workdir={tmp_path / 'run'}",
        f"--lm={lm_path}",
        f"--data.source={texts}",
        f"--data.cache={tmp_path / 'cache'}",
        "--data.context=16",
        "--sae.sites=resid.0",
        "--sae.widths=64",
        "--bucket.rows=8",
        "--bucket.update_tokens=64",
        "--tokens=512",
        "--eval.batch=8",
        "--eval.batches=2",
        "--eval.loss_batches=1",
        *overrides,
      ],
    )
    try:
      runpy.run_path(str(QUICKSTART), run_name="__main__")
      status = 0
    except SystemExit as stop:
      status = stop.code
    return status, capsys.readouterr().err

  return run


@pytest.mark.parametrize(
  ("override", "says"),
  [
    ("--sae.wdiths=64", ["--sae.wdiths", "--sae.widths"]),
    ("--tokens=many", ["--tokens=many"]),
    ("--sae.sites=resid.7", ["resid.7", "layers 0 to 1"]),
    ("--sae.sites=residual.1", ["residual.1"]),
    ("--sae.widths=60", ["placement=by_latent", "8 devices", "60"]),
    ("--mesh.model=3", ["--mesh.model=3", "8 devices"]),
    ("--bucket.update_tokens=60", ["update_tokens=60"]),
    ("--lm=nowhere", ["nowhere", "config.json"]),
    ("--data.source=nowhere", ["nowhere"]),
    ("--start_from=nowhere", ["nowhere", "not a run"]),
    ("--keep_every=0", ["--keep_every=0", "from 1"]),
    ("--bucket.rows=0", ["--bucket.rows=0", "from 1"]),
    ("--sae.target_l0=8,8", ["--sae.target_l0=8,8", "8 twice"]),
    ("--sae.target_l0=8,65", ["--sae.target_l0=8,65", "64"]),
    ("--sae.widths=1000000000", ["needs", "are there", "--sae.widths"]),
    ("--bucket.microbatches=99999999", ["needs", "are there", "--bucket"]),
    ("--bucket.rows=16777216", ["use --bucket.update_tokens=16777216"]),
    ("--bucket.microbatches=400", ["rows", "batch"]),
  ],
)
def test_mistakes_are_one_sentence_and_status_2(
  quickstart, tmp_path, override, says
):
  extra = ["--sae.placement=by_latent"] if "widths=60" in override else []
  status, err = quickstart(override, *extra)
  assert status == 2
  assert err.startswith("error: ") and err.count("\n") == 1
  for word in says:
    assert word in err
  assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
  ("content", "says"),
  [
    (b"", "no text"),
    (b"\x00\x01\x02 binary", "zero byte"),
    (b"caf\xe9 " * 9, "UTF-8"),
  ],
)
def test_files_that_are_not_text_are_an_error(
  quickstart, tmp_path, content, says
):
  bad = tmp_path / "bad.txt"
  bad.write_bytes(content)
  status, err = quickstart(f"--data.source={bad}")
  assert status == 2
  assert "bad.txt" in err and says in err
  assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
  "sweep",
  [
    ["--sae.architecture=topk", "--sae.target_l0=8"],
    ["--sae.sites=transcoder.0", "--sae.skip=true", "--sae.target_l0=8"],
  ],
)
def test_what_no_format_holds_is_left_out_and_the_report_is_made(
  quickstart, tmp_path, sweep
):
  assert quickstart(*sweep)[0] == 0
  assert (tmp_path / "run/report/index.html").exists()
  assert not (tmp_path / "run/export").exists()


def test_another_configuration_names_what_differs(quickstart, tmp_path):
  assert quickstart()[0] == 0
  before = snapshot(tmp_path / "run")
  status, err = quickstart("--sae.optim.lr=0.5", "--sae.target_l0=5")
  assert status == 2
  assert "sae.optim.lr was 0.002 and is 0.5" in err
  assert "sae.target_l0 was 12,24,48 and is 5" in err
  assert snapshot(tmp_path / "run") == before


def test_a_folder_that_is_not_a_run_stays_as_it_was(quickstart, tmp_path):
  (tmp_path / "run").mkdir()
  (tmp_path / "run" / "thesis.tex").write_text("years of work")
  status, err = quickstart()
  assert status == 2 and "is not empty" in err
  assert snapshot(tmp_path / "run") == {"thesis.tex": b"years of work"}


def test_a_workdir_that_cannot_be_made_is_an_error(quickstart, tmp_path):
  (tmp_path / "run").write_text("a file")
  status, err = quickstart()
  assert status == 2 and "run cannot be written" in err
  assert (tmp_path / "run").read_text() == "a file"


def test_a_full_disk_damages_nothing(quickstart, tmp_path, monkeypatch):
  assert quickstart("--tokens=512")[0] == 0
  before = snapshot(tmp_path / "run" / "checkpoints")
  (tmp_path / "run" / "config.json").write_text(
    (tmp_path / "run" / "config.json")
    .read_text()
    .replace('"tokens": 512', '"tokens": 1024')
  )
  full = shutil.disk_usage("/")._replace(free=1000)
  monkeypatch.setattr(shutil, "disk_usage", lambda path: full)
  status, err = quickstart("--tokens=1024")
  assert status == 2 and "0 MB free" in err
  assert snapshot(tmp_path / "run" / "checkpoints") == before


def snapshot(folder: pathlib.Path) -> dict[str, bytes]:
  return {
    str(path.relative_to(folder)): path.read_bytes()
    for path in sorted(folder.rglob("*"))
    if path.is_file()
  }
