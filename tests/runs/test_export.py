"""An export records everything that the run knows."""

import json
import pathlib

import pytest

from jaxsae import formats, runs
from jaxsae.train import train


class Notes:
  """A format that keeps records instead of writing them."""

  name = "notes"
  accepts = "nothing"

  def __init__(self):
    self.records = []

  def matches(self, path):
    return False

  def read(self, path):
    raise NotImplementedError

  def check(self, published):
    pass

  def write(self, published, path):
    self.records.append(published)

  def place(self, published):
    return str(published.taps)


@pytest.fixture
def notes(monkeypatch):
  notes = Notes()
  monkeypatch.setitem(formats.FORMATS, notes.name, notes)
  return notes


def test_the_record_of_a_run(config, tmp_path, notes, capsys):
  train(config)
  run = runs.open_run(config.workdir)
  runs.evaluate(run)
  runs.export(run, "notes", tmp_path / "out")
  assert "not evaluated" not in capsys.readouterr().err
  assert [r.taps for r in notes.records] == [s for s, _ in run.saes.values()]
  measured = runs.figures(run)
  for name, record in zip(run.saes, notes.records, strict=True):
    assert record.model == config.lm
    assert record.data["source"] == config.data.source
    assert record.recipe["tokens"] == config.tokens
    assert record.metrics["l0"] == measured[name]["l0"]
    assert record.metrics["fvu"] == measured[name]["fvu"]
    assert record.licence is None


def test_figures_of_training_stand_in_and_are_named(
  config, replace, tmp_path, notes, capsys
):
  config = replace(config, tokens=512)
  train(config)
  runs.export(runs.open_run(config.workdir), "notes", tmp_path / "out")
  assert "not evaluated at step 1" in capsys.readouterr().err
  lines = pathlib.Path(config.workdir, "metrics.jsonl").read_text()
  last = json.loads(lines.splitlines()[-1])
  name = config.stacks[0].names[0]
  assert notes.records[0].metrics["l0"] == last[f"{name}/l0"]
