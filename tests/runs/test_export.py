"""An export records everything that the run knows."""

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

  def write(self, published, path):
    self.records.append(published)

  def place(self, published):
    return str(published.taps)


def test_the_record_of_a_run(config, tmp_path, monkeypatch):
  notes = Notes()
  monkeypatch.setitem(formats.FORMATS, notes.name, notes)
  train(config)
  run = runs.open_run(config.workdir)
  runs.export(run, "notes", tmp_path / "out")
  assert [r.taps for r in notes.records] == [s for s, _ in run.saes.values()]
  measured = runs.figures(run)
  for name, record in zip(run.saes, notes.records, strict=True):
    assert record.model == config.lm
    assert record.data["source"] == config.data.source
    assert record.recipe["tokens"] == config.tokens
    assert record.metrics["l0"] == measured[name]["l0"]
    assert record.metrics["fvu"] == measured[name]["fvu"]
    assert record.licence is None
