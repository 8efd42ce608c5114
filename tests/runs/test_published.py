"""Published autoencoders are evaluated as a run's are, and warned of."""

import dataclasses
import json

import numpy as np
import pytest

import jaxsae
from jaxsae import evals, formats, runs
from jaxsae.errors import UserError
from jaxsae.formats import Published
from jaxsae.lm import Site, Taps
from jaxsae.mesh import MeshConfig
from jaxsae.runs import RunSettings, evaluate_published
from jaxsae.train import EvalConfig
from tests.evals.samples import random_sae, random_transcoder

pytestmark = pytest.mark.slow

AMOUNT = EvalConfig(batch=8, batches=3, loss_batches=2, control_batches=1)


@pytest.fixture(scope="module")
def settings(tmp_path_factory, lm_path):
  cache = str(tmp_path_factory.mktemp("tokens"))
  place = runs.TextPlace(cache=cache)
  return RunSettings(lm=str(lm_path), data=place, eval=AMOUNT)


@pytest.fixture(scope="module")
def released(tmp_path_factory, lm_path):
  """Two autoencoders and a transcoder, in three formats."""
  top = tmp_path_factory.mktemp("released")
  lm = jaxsae.load_lm(lm_path)
  gain = lm.norm_gain(Taps.transcoder(1).reads[0])
  records = {
    "sae_lens": (Taps.of(Site("resid", 0)), random_sae(32, 64, 0), None),
    "gemma_scope": (Taps.of(Site("mlp", 1)), random_sae(32, 64, 1), None),
    "gemma_scope_2": (Taps.transcoder(1), random_transcoder(32, 64, 2), gain),
  }
  for name, (taps, sae, of_norm) in records.items():
    one = Published(sae, taps, of_norm, model="toy", metrics={"l0": 30.0})
    formats.write_release(name, [one], top / name)
  return top


@pytest.fixture(scope="module")
def evaluated(released, texts, settings, tmp_path_factory):
  out = tmp_path_factory.mktemp("out")
  found = evaluate_published([released], str(texts), settings, out, context=32)
  return found, out


def by_site(results):
  return {str(result.site): result for result in results.values()}


def test_any_format_is_evaluated_at_its_site(evaluated, released):
  found = by_site(evaluated[0])
  assert set(found) == {"resid.0", "mlp.1", "transcoder.1"}
  record = evals.read(evaluated[1] / "results.json")
  assert [r["name"] for r in record["results"]] == list(evaluated[0])
  assert record["about"]["context"] == 32
  assert record["definitions"]["fvu"]
  assert all((released / name).is_dir() for name in evaluated[0])
  assert all(len(result.controls) == 3 for result in found.values())
  assert not list(evaluated[1].glob(".*"))


def test_the_figures_are_those_of_the_arrays(
  evaluated, released, texts, settings, lm_path
):
  """Also of a transcoder that was written without the gain of its norm."""
  lm = jaxsae.load_lm(lm_path)
  corpus = jaxsae.data.open_held_out(
    jaxsae.data.DataConfig(
      source=str(texts), cache=settings.data.cache, context=32
    ),
    lm.tokenizer,
  )
  batches = lambda: list(jaxsae.data.held_out_batches(corpus, 8))[:3]
  ours = {
    "resid.0": (Site("resid", 0), random_sae(32, 64, 0)),
    "transcoder.1": (Taps.transcoder(1), random_transcoder(32, 64, 2)),
  }
  for name, expected in evals.evaluate(lm, ours, batches, 2).items():
    found = by_site(evaluated[0])[name]
    for figure in ("tokens", "l0", "fvu", "spliced_loss", "kl", "cosine"):
      wanted = pytest.approx(getattr(expected, figure), rel=1e-4)
      assert getattr(found, figure) == wanted, figure


@pytest.mark.parametrize("data, model", [(2, 1), (2, 4)])
def test_devices_do_not_change_the_figures(
  evaluated, released, texts, settings, tmp_path, data, model
):
  """Nor how the rows and latents are divided among them."""
  settings = dataclasses.replace(settings, mesh=MeshConfig(data, model))
  found = evaluate_published([released], str(texts), settings, tmp_path, 32)
  for name, result in found.items():
    expected = evaluated[0][name].to_json()
    for figure, value in result.to_json().items():
      if isinstance(value, float):
        wanted = pytest.approx(expected[figure], rel=1e-5, abs=1e-5)
        assert value == wanted, (name, figure)


def test_a_figure_far_from_the_files_own_is_told(
  evaluated, released, texts, settings, tmp_path, capsys
):
  """The cards say an L0 of 30; random autoencoders have a lower fidelity."""
  evaluate_published(
    [released / "sae_lens"], str(texts), settings, tmp_path, 32
  )
  said = capsys.readouterr().out
  result = by_site(evaluated[0])["resid.0"]
  assert (not 20 < result.l0 < 45) == ("l0" in said.replace("l0_30", ""))
  assert ("worse than the mean" in said) == (result.fvu > 1)
  assert "note:" in said


@pytest.mark.parametrize(
  "bad, sentence",
  [
    ({"paths": ["nowhere"]}, "nowhere does not exist"),
    ({"text": "/nowhere"}, "/nowhere"),
    ({"place": "resid.1"}, "says that it is of .*not of resid.1"),
    ({"lm": ""}, "On which language model.*--lm="),
  ],
)
def test_what_is_missing_is_named(
  released, texts, settings, tmp_path, bad, sentence
):
  given = {"paths": [released], "text": str(texts), "place": None} | bad
  if "lm" in bad:
    # Their model has no name that others know, so nothing says it.
    settings = dataclasses.replace(settings, lm=given.pop("lm"))
    for card in released.rglob("card.json"):
      assert json.loads(card.read_text())["model"] == "toy"
    given["paths"] = [strip(released / "sae_lens", tmp_path / "bare")]
  with pytest.raises(UserError, match=sentence):
    evaluate_published(
      settings=settings, out=tmp_path / "out", context=32, **given
    )


def strip(release, out):
  """Copies an autoencoder without what says its model."""
  formats.write_release(
    "sae_lens",
    [
      Published(
        random_sae(32, 64, 0), Taps.of(Site("resid", 0)), metrics={"l0": 3.0}
      )
    ],
    out,
  )
  assert release.exists()
  return out


def test_a_stopped_evaluation_goes_on(
  evaluated, released, texts, settings, tmp_path, monkeypatch
):
  given = [released], str(texts), settings, tmp_path, 32
  whole, offers = runs.published.Unfinished.offer, []

  def stopping(self, part, sums, done):
    offers.append(part)
    if len(offers) == 6:
      self._stop.asked = lambda number: True
      self._stop.status = 42
    whole(self, part, sums, done)

  monkeypatch.setattr(runs.published.Unfinished, "offer", stopping)
  with pytest.raises(SystemExit):
    evaluate_published(*given)
  assert not (tmp_path / "results.json").exists()
  first = len(offers)
  found = evaluate_published(*given)
  assert len(offers) - first < first + 40
  for name, result in found.items():
    a, b = result.to_json(), evaluated[0][name].to_json()
    np.testing.assert_equal(a, b)
