"""A run's evaluation is stopped, goes on, and is kept with its settings."""

import json
import pathlib
import signal

import numpy as np
import pytest

from jaxsae import runs
from jaxsae.lm import Site
from jaxsae.runs.settings import RunSettings
from jaxsae.runs.unfinished import Unfinished
from jaxsae.train.config.duration import Duration
from jaxsae.train.loop import train
from jaxsae.train.process.shutdown import PREEMPTED
from tests import pods

pytestmark = pytest.mark.slow


@pytest.fixture
def finished(config, replace):
  """The config of a trained run of two autoencoders at one site."""
  small = replace(
    config,
    tokens=512,
    sae__sites=(Site("resid", 1),),
    checkpoint_every=Duration.parse("1s"),
  )
  train(small)
  return small


@pytest.fixture
def offers(monkeypatch):
  """Counts forward passes, and terminates the process after `until`."""

  class Offers:
    count, until = 0, None

  whole = Unfinished.offer

  def offer(self, part, sums, done):
    Offers.count += 1
    if Offers.count == Offers.until:
      signal.raise_signal(signal.SIGTERM)
    whole(self, part, sums, done)

  monkeypatch.setattr(Unfinished, "offer", offer)
  return Offers


def results(config):
  file = pathlib.Path(config.workdir) / "eval" / "1.json"
  return json.loads(file.read_text())


def test_a_stopped_evaluation_exits_and_goes_on(finished, offers, capsys):
  run = runs.open_run(finished.workdir)
  runs.evaluate(run)
  expected, needed = results(finished), offers.count
  folder = pathlib.Path(finished.workdir) / "eval"
  assert [file.name for file in folder.iterdir()] == ["1.json"]
  (folder / "1.json").unlink()

  offers.count, offers.until = 0, 4  # in the passes for losses
  with pytest.raises(SystemExit) as stop:
    runs.evaluate(run)
  assert stop.value.code == PREEMPTED
  assert "to go on" in capsys.readouterr().err
  assert [file.name for file in folder.iterdir()] == ["1.unfinished"]

  offers.until = None
  runs.evaluate(runs.open_run(finished.workdir))
  assert offers.count == needed  # in both together: nothing twice
  assert results(finished) == expected
  assert [file.name for file in folder.iterdir()] == ["1.json"]


def test_another_evaluation_begins_anew(finished, offers, replace):
  offers.until = 4
  with pytest.raises(SystemExit):
    runs.evaluate(runs.open_run(finished.workdir))
  offers.count, offers.until = 0, None
  own = RunSettings.of(finished)
  settings = replace(own, eval__batches=1)
  runs.evaluate(runs.open_run(finished.workdir, settings))
  # One batch and its end; the loss clean, ablated twice, and spliced twice;
  # then the same with three controls of each.
  assert offers.count == 2 + 5 + 2 + 9


def test_what_was_damaged_is_measured_again(finished, offers):
  offers.until = 4
  with pytest.raises(SystemExit):
    runs.evaluate(runs.open_run(finished.workdir))
  folder = pathlib.Path(finished.workdir) / "eval" / "1.unfinished"
  for file in folder.iterdir():
    file.write_bytes(file.read_bytes()[:-40])
  offers.until = None
  runs.evaluate(runs.open_run(finished.workdir))
  assert len(results(finished)["results"]) == 2


def test_some_autoencoders_are_evaluated_beside_the_others(finished):
  run = runs.open_run(finished.workdir)
  first, second = run.names
  runs.evaluate(runs.open_run(finished.workdir, only=[first]))
  assert [r["name"] for r in results(finished)["results"]] == [first]
  measured = runs.figures(run)  # both, because one is missing
  assert list(measured) == [first, second]
  runs.evaluate(runs.open_run(finished.workdir, only=[second]))
  assert [r["name"] for r in results(finished)["results"]] == [first, second]


def test_programs_are_kept_beside_the_run(finished, no_compile_cache):
  runs.evaluate(runs.open_run(finished.workdir))
  kept = pathlib.Path(finished.workdir).parent / ".compiled"
  assert [file for file in kept.iterdir() if "spliced_stream" in file.name]


def test_a_mesh_that_rows_do_not_divide_changes_nothing(finished, replace):
  """Batches of 8 rows on 3 by 1 devices, padded, and on 1."""
  found = []
  for data, model in ((3, 1), (1, 2)):
    own = replace(RunSettings.of(finished), mesh__data=data, mesh__model=model)
    runs.evaluate(runs.open_run(finished.workdir, own))
    found.append(results(finished)["results"])
  for one, other in zip(*found, strict=True):
    assert one["tokens"] == other["tokens"] > 0
    assert one["loss_tokens"] == other["loss_tokens"] > 0
    for figure in ("l0", "fvu", "clean_loss", "spliced_loss", "mean_loss"):
      np.testing.assert_allclose(one[figure], other[figure], rtol=1e-5)


# Evaluates a trained run in several processes; one gets SIGTERM on the way.
INTERRUPTED = """
import os, json, signal, time
from jaxsae import overrides, pod, runs
from jaxsae.runs.unfinished import Unfinished
from jaxsae.train.config import TrainConfig
pod.join()
offer, offers = Unfinished.offer, []
def slowly(self, part, sums, done):
  offers.append(part)
  if UNTIL and pod.is_leader() and len(offers) == 2:
    os.kill(os.getpid(), signal.SIGTERM)
  time.sleep(UNTIL and 0.5)
  offer(self, part, sums, done)
Unfinished.offer = slowly
config = overrides.from_json(TrainConfig, json.load(open(os.environ["CONFIG"])))
runs.evaluate(runs.open_run(config.workdir))
print("offers", len(offers))
"""


def test_all_processes_of_a_pod_stop_and_go_on(finished, tmp_path):
  """Each feeds its own rows."""
  script = lambda until: INTERRUPTED.replace("UNTIL", str(until))
  run = lambda name, until: pods.Pod(
    finished, tmp_path / name, 2, 1, script=script(until)
  )
  with run("whole", 0) as whole:
    assert whole.wait() == [0, 0], whole.said()
  expected = results(finished)
  (pathlib.Path(finished.workdir) / "eval" / "1.json").unlink()
  with run("first", 1) as first:
    assert first.wait() == [PREEMPTED] * 2, first.said() + first.said(1)
  with run("second", 0) as second:
    assert second.wait() == [0, 0], second.said()
  assert results(finished) == expected
  count = lambda pod: int(pod.said().split("offers")[1].split()[0])
  assert count(second) < count(whole)
  runs.evaluate(runs.open_run(finished.workdir))  # on this process's devices
  for one, other in zip(
    results(finished)["results"], expected["results"], strict=True
  ):
    assert one["loss_tokens"] == other["loss_tokens"]
    for figure in ("l0", "fvu", "clean_loss", "spliced_loss", "kl", "cosine"):
      np.testing.assert_allclose(one[figure], other[figure], rtol=1e-5)
