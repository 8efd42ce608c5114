"""The evaluation as a whole, its file and its table."""

import dataclasses
import io
import json
import os
import pathlib

import jax
import numpy as np
import pytest
from rich.console import Console

from jaxsae import mesh as meshes
from jaxsae.errors import UserError
from jaxsae.evals import (
  DEFINITIONS,
  Result,
  count_passes,
  evaluate,
  table,
  write,
)
from jaxsae.lm import Site, Taps, sharding
from tests.evals import reference
from tests.evals.samples import random_sae, random_transcoder

pytestmark = pytest.mark.slow

RESID, ATTN = Site("resid", 0), Site("attn", 1)
READS_16 = random_sae(24, 4, 0).replace(w_enc=random_sae(16, 4, 0).w_enc)


@pytest.fixture(scope="module")
def saes():
  return {
    "resid.0/a": (RESID, random_sae(16, 32, 0)),
    "attn.1/a": (ATTN, random_sae(24, 32, 1)),
  }


@pytest.fixture(scope="module")
def results(lm, saes, batches):
  return evaluate(lm, saes, lambda: iter(batches), loss_batches=2)


def result(**given):
  """A made-up result."""
  usual = Result(
    name="resid.3/l0_32",
    site=Site("resid", 3),
    width=4,
    tokens=1000,
    l0=1.25,
    fvu=0.25,
    dead=0.25,
    loss_tokens=500,
    clean_loss=2.0,
    spliced_loss=2.5,
    zero_loss=10.0,
    mean_loss=4.0,
    delta_loss=0.5,
    loss_recovered_zero=0.9375,
    loss_recovered_mean=0.75,
    density=np.array([0, 0.001, 0.5, 1]),
  )
  return dataclasses.replace(usual, **given)


def test_each_autoencoder_has_its_own_figures(lm, saes, batches, results):
  assert list(results) == list(saes)
  for name, (site, sae) in saes.items():
    found = results[name]
    x = reference.activations(lm, batches, site)
    y = reference.reconstruct(sae, x)
    assert (found.name, found.site, found.width) == (name, site, 32)
    assert found.tokens == len(x)
    assert found.fvu == pytest.approx(reference.fvu(x, y), rel=1e-5)
    density = (reference.latents(sae, x) > 0).mean(axis=0)
    np.testing.assert_allclose(found.density, density)
    assert found.l0 == pytest.approx(density.sum())
    assert found.dead == pytest.approx((density == 0).mean())


def test_losses_use_the_first_batches_but_the_mean_of_all(
  lm, saes, batches, results
):
  site, sae = saes["attn.1/a"]
  found = results["attn.1/a"]
  mean = reference.activations(lm, batches, site).mean(axis=0)
  first = batches[:2]
  clean, tokens = reference.loss(lm, first)
  losses = {
    name: reference.loss(lm, first, site, replace)[0]
    for name, replace in {
      "spliced": lambda x: reference.reconstruct(sae, x),
      "zero": np.zeros_like,
      "mean": lambda x: np.broadcast_to(mean, x.shape),
    }.items()
  }
  assert found.loss_tokens == tokens
  assert found.clean_loss == pytest.approx(clean, rel=1e-5)
  assert found.spliced_loss == pytest.approx(losses["spliced"], rel=1e-5)
  assert found.delta_loss == pytest.approx(losses["spliced"] - clean, abs=1e-5)
  for ablation in ("zero", "mean"):
    worst = losses[ablation]
    assert getattr(found, f"{ablation}_loss") == pytest.approx(worst, rel=1e-5)
    if worst < clean:  # chance: the model is random
      assert np.isnan(getattr(found, f"loss_recovered_{ablation}"))


def test_a_transcoder_is_evaluated_at_the_site_it_writes(lm, batches):
  site, sae = Taps.transcoder(0), random_transcoder(16, 32, 2)
  found = evaluate(lm, {"t": (site, sae)}, lambda: batches, loss_batches=1)
  x = reference.activations(lm, batches, site.reads[0])
  y = reference.activations(lm, batches, site.writes[0])
  expected = reference.fvu(y, reference.reconstruct(sae, x))
  assert found["t"].fvu == pytest.approx(expected, rel=1e-5)
  mean = lambda x: np.broadcast_to(y.mean(axis=0), x.shape)
  ablated, _ = reference.loss(lm, batches[:1], site.writes[0], mean)
  assert found["t"].mean_loss == pytest.approx(ablated, rel=1e-5)
  assert found["t"].to_json()["site"] == "transcoder.0"


def test_fewer_batches_than_loss_batches_are_allowed(lm, saes, batches):
  found = evaluate(lm, saes, lambda: batches, loss_batches=100)
  _, tokens = reference.loss(lm, batches)
  assert found["resid.0/a"].loss_tokens == tokens


def test_progress_reports_every_batch_and_every_pass(lm, saes, batches):
  told = []

  def note(phase, done):
    told.append((phase, done))

  evaluate(lm, saes, lambda: batches, loss_batches=2, progress=note)
  assert told == [
    ("sparsity", 1),
    ("sparsity", 2),
    ("sparsity", 3),
    *(("fidelity", done) for done in range(1, 8)),
  ]
  # Clean, two ablations at each of two sites, and two autoencoders.
  assert count_passes(site for site, _ in saes.values()) == 7


def test_a_mesh_changes_nothing(lm, saes, batches, results):
  mesh = meshes.make(meshes.MeshConfig(data=2, model=2))
  rows = meshes.shard(mesh, "data")
  batches = [jax.device_put(batch, rows) for batch in batches]
  sharded = {
    name: (site, jax.device_put(sae, layout(sae, mesh)))
    for name, (site, sae) in list(saes.items())[:1]
  }
  found = evaluate(sharded_lm(lm, mesh), sharded, lambda: batches, 2)
  for name, figures in found.items():
    expected = results[name].to_json()
    for key, value in figures.to_json().items():
      if isinstance(value, float):
        assert value == pytest.approx(expected[key], rel=1e-4, abs=1e-5)
      elif key == "intervals":
        for figure, ends in value.items():
          ends, wanted = (
            np.array(x, float) for x in (ends, expected[key][figure])
          )
          np.testing.assert_allclose(ends, wanted, rtol=1e-4, atol=1e-5)
      elif "by_" not in key:
        assert value == expected[key]


def layout(sae, mesh):
  """Latents over `model`."""
  return sae.replace(
    w_enc=meshes.shard(mesh, None, "model"),
    b_enc=meshes.shard(mesh, "model"),
    w_dec=meshes.shard(mesh, "model", None),
    b_dec=meshes.shard(mesh),
    threshold=meshes.shard(mesh, "model"),
  )


def sharded_lm(lm, mesh):
  where = sharding.placement(lm.config, mesh)

  def place(path, leaf):
    return jax.device_put(leaf, where(tuple(key.key for key in path)))

  params = jax.tree.map_with_path(place, lm.params)
  return lm.replace(params=params, mesh=mesh)


@pytest.mark.parametrize(
  "bad, sentence",
  [
    ({"loss_batches": 0}, "loss_batches=0"),
    ({"saes": {"x": (Site("mlp", 2), random_sae(16, 4, 0))}}, "mlp.2 is out"),
    ({"saes": {"x": (ATTN, random_sae(16, 4, 0))}}, r"\(16,\).*attn.1 needs"),
    ({"saes": {"x": (ATTN, READS_16)}}, r"w_enc .*\(16, 4\), .* \(24, 4\)"),
    ({"batches": list}, "hold no text"),
  ],
)
def test_an_autoencoder_that_does_not_fit_its_site_is_an_error(
  lm, saes, batches, bad, sentence
):
  good = {"saes": saes, "batches": lambda: batches, "loss_batches": 1}
  with pytest.raises(UserError, match=sentence):
    evaluate(lm, **good | bad)


def test_a_file_reads_back_as_what_was_written(tmp_path, results):
  path = tmp_path / "eval" / "100.json"
  write(results, path, step=100, lm="gemma2-tiny")
  data = json.loads(path.read_text())
  assert data["version"] == 2
  assert data["about"] == {"step": 100, "lm": "gemma2-tiny"}
  assert data["results"] == [r.to_json() for r in results.values()]
  for figures in data["results"]:
    told = figures.keys() - {"version", "name", "site", "width"}
    assert told == data["definitions"].keys()


def test_the_docs_explain_every_figure():
  page = (pathlib.Path(__file__).parents[2] / "docs/METRICS.md").read_text()
  missing = [name for name in DEFINITIONS if f"`{name}`" not in page]
  assert not missing


def test_json_has_the_figures_and_their_version(results):
  found = results["resid.0/a"].to_json()
  assert found["version"] == 2
  assert found["site"] == "resid.0"
  assert found["l0"] == results["resid.0/a"].l0


def test_figures_that_are_not_finite_are_null():
  found = result(fvu=float("nan"), delta_loss=float("inf")).to_json()
  assert (found["fvu"], found["delta_loss"]) == (None, None)
  json.dumps(found, allow_nan=False)


def test_the_histogram_counts_every_latent_once():
  found = result().to_json()["density"]
  edges, counts = found["log10_edges"], found["counts"]
  assert (edges[0], edges[-1]) == (-3, 0)
  assert found["dead"] == 1
  assert len(counts) == len(edges) - 1 == 12
  assert counts[0] == 1  # 0.001
  assert counts[-2] == 1  # 0.5, whose log is -0.3
  assert counts[-1] == 1  # 1
  assert sum(counts) == 3


@pytest.mark.parametrize("tokens", [1, 7, 1000, 10**6 + 1, 10**9])
def test_the_histogram_includes_the_rarest_latent(tokens):
  density = np.array([0, 1 / tokens, 1])
  found = result(tokens=tokens, density=density).to_json()["density"]
  assert found["counts"][-1] >= 1
  assert sum(found["counts"]) == 2
  assert all((4 * edge).is_integer() for edge in found["log10_edges"])


def test_a_file_is_written_whole_or_not_at_all(tmp_path, results, monkeypatch):
  path = tmp_path / "1.json"
  path.write_text("old")

  def full(*_):
    raise OSError(28, "No space left on device")

  with monkeypatch.context() as broken:
    broken.setattr(os, "replace", full)
    with pytest.raises(UserError, match=r"1\.json .*No space left"):
      write(results, path)
  assert path.read_text() == "old"
  assert os.listdir(tmp_path) == ["1.json"]

  with pytest.raises(TypeError):
    write(results, path, about=object())
  assert path.read_text() == "old"


def test_a_path_that_cannot_be_written_is_an_error(tmp_path, results):
  (tmp_path / "file").touch()
  with pytest.raises(UserError, match="cannot be written"):
    write(results, tmp_path / "file" / "1.json")


def test_the_table_shows_each_figure_within_80_columns():
  shown = {
    "a": result(),
    "b": result(
      name="resid.41/width_1m/average_l0_1234/a long name",
      width=1_048_576,
      l0=1234.5,
      fvu=12.345,
      delta_loss=-12.3456,
      loss_recovered_zero=-123.456,
      loss_recovered_mean=float("nan"),
      dead=1.0,
      tokens=10**9,
    ),
  }
  lines = render(table(shown))
  assert max(map(len, lines)) <= 80
  row = next(line for line in lines if "resid.3" in line)
  cells = ["resid.3/l0_32", "4", "1.2", "0.250", "0.5000", "0.938", "0.750"]
  assert row.split() == [*cells, "25.0%"]
  text = "\n".join(lines)
  for cell in ("1048576", "1234.5", "12.345", "-12.3456", "-123.456", "100.0%"):
    assert cell in text
  assert "…" not in text
  assert "1,000 or 1,000,000,000 tokens" in text


@pytest.mark.parametrize("width", [20, 30, 40, 60, 79])
def test_a_narrow_terminal_shows_names_and_what_fits(width):
  name = "resid.3/l0_32"
  lines = render(table({"a": result()}, width), width)
  assert max(map(len, lines)) <= width
  row = next(line for line in lines if "resid" in line).split()
  figures = {20: 1, 30: 2, 40: 3, 60: 5, 79: 7}
  assert row[0] == name and "1.2" in row
  assert len(row) - 1 >= figures[width]


def render(shown, width=80):
  out = io.StringIO()
  Console(file=out, width=width).print(shown)
  return out.getvalue().splitlines()


@pytest.fixture(scope="module")
def deep(lm):
  """A language model of four layers."""
  config = dataclasses.replace(lm.config, num_layers=4)
  first = lm.params["layer_0"]
  layers = {f"layer_{i}": first for i in range(4)}
  return lm.replace(params=lm.params | layers, config=config)


def count_programs(run):
  """Returns how many programs are compiled, or loaded, while `run` runs."""
  made = []
  note = lambda event, duration, **_: made.append(event == MADE)
  jax.clear_caches()
  jax.monitoring.register_event_duration_secs_listener(note)
  run()
  jax.monitoring.unregister_event_duration_listener(note)
  return sum(made)


MADE = "/jax/core/compile/backend_compile_duration"


def test_what_is_compiled_does_not_grow_with_sites(deep, batches):
  """Two shapes of autoencoders take nine programs at any number of sites."""
  widths = {"resid": 16, "mlp": 16, "attn": 24}
  every = [Site(where, i) for i in range(4) for where in widths]
  counts = []
  for sites in (every[:3], every):
    saes = {
      f"{site}/{seed}": (site, random_sae(widths[site.where], 8, seed))
      for site in sites
      for seed in range(2)
    }
    run = lambda saes=saes: evaluate(deep, saes, lambda: batches, 1)
    counts.append(count_programs(run))
  assert counts[0] == counts[1] <= 9
