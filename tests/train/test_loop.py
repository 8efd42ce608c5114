"""A run from beginning to end: stopped and continued, it is the same run."""

import dataclasses
import json
import pathlib
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from jaxsae import overrides
from jaxsae.errors import UserError
from jaxsae.lm import capture
from jaxsae.runs import open_run
from jaxsae.train import loop
from jaxsae.train.loop import train
from jaxsae.train.process.shutdown import INTERRUPTED, PREEMPTED
from jaxsae.train.sources import text as text_source
from tests import pods
from tests.train.toys import make_config

pytestmark = pytest.mark.slow

SCRIPT = """
import json, sys
from jaxsae import overrides, train
from jaxsae.train.config import TrainConfig
config = overrides.from_json(TrainConfig, json.load(open(sys.argv[1])))
train.train(config)
"""


FIGURES = (
  "l0",
  "fvu",
  "loss",
  "dead",
  "in_window",
  "coefficient",
  "pull",
  "threshold",
  "moved",
  "density_max",
)


def stop_at(monkeypatch, bucket):
  """Presses Ctrl-C while that bucket is read, ahead of its step."""
  read, count = text_source.next_bucket, iter(range(1, 1000))

  def reading(*args):
    if next(count) == bucket:
      signal.raise_signal(signal.SIGINT)
    return read(*args)

  monkeypatch.setattr(text_source, "next_bucket", reading)


@pytest.fixture(scope="module")
def over(tmp_path_factory, texts, lm_path):
  """A run of six steps that is over, and its last state; look only."""
  config = make_config(tmp_path_factory.mktemp("over"), texts, lm_path)
  return config, train(config)


@pytest.mark.parametrize("bucket", [2, 4, 6])
def test_a_stopped_run_ends_as_if_it_had_not_been(
  over, replace, tmp_path, monkeypatch, capsys, bucket
):
  config, whole = over
  parts = replace(config, workdir=str(tmp_path / "parts"))
  with monkeypatch.context() as patch:
    stop_at(patch, bucket)
    with pytest.raises(SystemExit) as stop:
      train(parts)
  assert stop.value.code == INTERRUPTED
  assert "to go on:" in capsys.readouterr().err
  assert len(pods.metrics(parts)) == bucket - 1
  pods.assert_same(train(parts), whole)
  assert pods.metrics(parts) == pods.metrics(config)


def test_a_finished_run_does_nothing_more(over):
  config, state = over
  before = pods.metrics(config)
  pods.assert_same(train(config), state)
  assert pods.metrics(config) == before


def test_a_relative_workdir_is_accepted(config, replace, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  train(replace(config, workdir="runs/here"))
  assert open_run("runs/here").step == 6


def test_only_the_first_step_compiles_and_none_transfers(
  config, monkeypatch, caplog
):
  """Over a whole run, checkpoints and lines of metrics included."""
  compile_step, compiled = loop.compile_step, []

  def guarding(*args):
    step = compile_step(*args)

    def guarded(*args):
      with jax.transfer_guard("disallow"):
        done = step(*args)
      compiled.append(len(caplog.records))
      return done

    return guarded

  monkeypatch.setattr(loop, "compile_step", guarding)
  with jax.log_compiles():
    train(config)
  texts = [record.getMessage() for record in caplog.records]
  assert len(compiled) == 6 and compiled[0] > 0
  made = lambda texts: [x for x in texts if "XLA compilation" in x]
  # The first checkpoint, after two steps, needs programs of its own.
  saving = ("jit(_each)", "jit(slice)")
  first = made(texts[compiled[0] : compiled[2]])
  assert all(any(one in text for one in saving) for text in first)
  assert made(texts[compiled[2] :]) == []


def test_metrics_are_one_object_a_line_with_every_autoencoder(over):
  config, _ = over
  found = pods.metrics(config)
  assert [x["step"] for x in found] == [1, 2, 3, 4, 5, 6]
  for name in ("resid.1/64/l0_4", "attn.0/64/l0_8"):
    for figure in FIGURES:
      assert np.isfinite(found[-1][f"{name}/{figure}"])
  board = pathlib.Path(config.workdir) / "tensorboard"
  assert any(board.iterdir())


def test_lines_that_a_crash_left_are_written_again(config, replace):
  train(config)
  file = pathlib.Path(config.workdir) / "metrics.jsonl"
  expected = pods.metrics(config)
  file.write_text(file.read_text() + '{"step": 7, "tokens": 9}\n{"ste')
  train(config)
  assert pods.metrics(config) == expected


def test_an_opened_run_holds_folded_autoencoders(over):
  config, state = over
  run = open_run(config.workdir)
  assert list(run.saes) == [
    "resid.1/64/l0_4",
    "resid.1/64/l0_8",
    "attn.0/64/l0_4",
    "attn.0/64/l0_8",
  ]
  site, sae = run.saes["resid.1/64/l0_8"]
  assert run.targets["resid.1/64/l0_8"] == 8
  tokens = np.arange(32).reshape(2, 16) + 10
  x = capture(run.lm, tokens, site)[site]
  trained = jax.tree.map(lambda a: a[1], state.stacks[0].sae)
  scale = state.stacks[0].scale[1]
  pre = (x / scale - trained.b_dec[None, None]) @ trained.w_enc
  pre += trained.b_enc[None, None]
  active = pre > trained.threshold[None, None]
  assert (active == (sae.encode(x) > 0)).mean() > 0.999


def test_looking_at_a_run_removes_nothing(config):
  """Not even what looks like the rest of a save: it may be under way."""
  train(config)
  checkpoints = pathlib.Path(config.workdir) / "checkpoints"
  rest = checkpoints / "7.orbax-checkpoint-tmp"
  rest.mkdir()
  before = sorted(p.name for p in checkpoints.iterdir())
  assert open_run(config.workdir).step == 6
  assert sorted(p.name for p in checkpoints.iterdir()) == before


def test_a_run_without_a_checkpoint_is_not_opened(config, tmp_path):
  folder = tmp_path / "empty"
  folder.mkdir()
  with pytest.raises(UserError, match="is not a run"):
    open_run(folder)


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory, texts, lm_path):
  """A run of sixty steps that nobody stopped, and its last state."""
  config = make_config(tmp_path_factory.mktemp("whole"), texts, lm_path)
  config = dataclasses.replace(config, tokens=60 * 512, checkpoint_every=7)
  return config, train(config)


@pytest.mark.parametrize(
  "sent, status",
  [
    (signal.SIGINT, INTERRUPTED),
    (signal.SIGTERM, PREEMPTED),
    (signal.SIGKILL, -signal.SIGKILL),
  ],
)
def test_a_real_process_is_stopped(whole_run, replace, tmp_path, sent, status):
  """By a signal from outside, and gone on with, bit for bit."""
  long, whole = whole_run
  # Beside the whole run, where the next finds what this one compiled.
  parts = replace(long, workdir=f"{long.workdir}_{sent.name}")
  (tmp_path / "config.json").write_text(json.dumps(overrides.to_json(parts)))
  command = [sys.executable, "-c", SCRIPT, str(tmp_path / "config.json")]
  process = subprocess.Popen(
    command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
  )
  try:
    deadline = time.monotonic() + 240
    while not (pathlib.Path(parts.workdir) / "checkpoints" / "7").exists():
      assert process.poll() is None and time.monotonic() < deadline
      time.sleep(0.01)
    process.send_signal(sent)
    _, err = process.communicate(timeout=240)
  finally:
    process.kill()
  assert "Traceback" not in err
  assert process.returncode == status
  assert ("to go on:" in err) == (status > 0)
  text = (pathlib.Path(parts.workdir) / "metrics.jsonl").read_text()
  assert 7 <= text.count("\n") < 60
  pods.assert_same(train(parts), whole)
  assert pods.metrics(parts) == pods.metrics(long)
