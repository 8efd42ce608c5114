"""Probing of a toy model agrees with NumPy, and has its controls."""

import json

import jax
import numpy as np
import pytest

from jaxsae import mesh as meshes
from jaxsae.errors import UserError
from jaxsae.evals import downstream
from jaxsae.evals.downstream import Probing
from jaxsae.evals.downstream.labelled import split
from jaxsae.evals.downstream.pool import pooled, to_rows
from jaxsae.evals.downstream.random_control import random_like
from jaxsae.evals.downstream.sparse_probe import probe_of_few
from jaxsae.lm import Site, Taps, capture, load_lm
from tests.evals import reference
from tests.evals.samples import random_sae

pytestmark = pytest.mark.slow

SITE, PAIR = Site("resid", 0), Taps.transcoder(1)
HOW = Probing(ks=(1, 4), seeds=(0, 1), context=24, train=120, test=40)


@pytest.fixture(scope="module")
def lm(lm_path):
  return load_lm(lm_path)


@pytest.fixture(scope="module")
def saes():
  return {
    "sae": (SITE, random_sae(32, 64, 0)),
    "pair": (PAIR, random_sae(32, 64, 1)),
  }


def texts(pool="mean"):
  """Stories that speak of a cat, or of a mat."""
  rng = np.random.default_rng(0)
  words = "the sat on a and then it ran to tell every other".split()
  made, labels = [], []
  for _ in range(160):
    label = str(rng.choice(["cat", "mat"]))
    story = [*rng.choice(words, rng.integers(2, 5)), label]
    made.append(" ".join(rng.permutation(story)))
    labels.append(label)
  return downstream.LabelledTexts("animal", made, labels, pool)


@pytest.fixture(scope="module")
def result(lm, saes):
  return downstream.probe(lm, saes, [texts()], HOW)


@pytest.mark.parametrize("pool", ["mean", "max", "last"])
def test_vectors_of_texts_agree_with_numpy(lm, saes, pool):
  few = texts().texts[:10]
  rows = to_rows(lm, few, 24, pool)
  placed = {name: (Taps.of(at), sae) for name, (at, sae) in saes.items()}
  found = pooled(lm, placed, rows, pool)
  over = {"mean": np.mean, "max": np.max, "last": lambda x, axis: x[-1]}[pool]
  longest = max(map(len, rows))  # what comes after a token changes nothing
  filled = np.array([[*row, *[0] * (longest - len(row))] for row in rows])
  seen = capture(lm, filled, SITE, PAIR.reads[0])
  for index, row in enumerate(rows):
    for name, (taps, sae) in placed.items():
      x = np.float64(seen[taps.reads[0]][index, 1 : len(row)])  # not BOS
      raw, latents = over(x, axis=0), over(reference.latents(sae, x), axis=0)
      ours = found.latents[name][[index]].toarray()[0]
      np.testing.assert_allclose(found.raw[taps.reads][index], raw, atol=1e-4)
      np.testing.assert_allclose(ours, latents, atol=1e-4)
  assert found.latents["sae"].sum() > 0


def test_long_texts_lose_their_end_or_for_the_last_token_their_begin(lm):
  text = " ".join(["cat"] * 100)
  whole = lm.tokenizer.encode([text])[0]
  bos = lm.tokenizer.bos
  assert to_rows(lm, [text], 8, "mean") == [(bos, *whole[:7])]
  assert to_rows(lm, [text], 8, "last") == [(bos, *whole[-7:])]


def test_figures_are_those_of_the_probes(lm, saes, result):
  given = texts()
  rows = to_rows(lm, given.texts, HOW.context, "mean")
  first = list({row: i for i, row in reversed(list(enumerate(rows)))}.values())
  kept = given.take(sorted(first))
  placed = {"sae": (Taps.of(SITE), saes["sae"][1])}
  x = pooled(lm, placed, [rows[i] for i in sorted(first)], "mean")
  y = np.array(kept.labels) == "mat"
  accuracies = []
  for seed in HOW.seeds:
    parts = split(kept, "mat", HOW.train, HOW.test, seed)
    _, by_k = probe_of_few(x.latents["sae"], y, parts, HOW.ks)
    accuracies.append(np.mean((by_k[4].scores > 0) == y[parts.test]))
  found = result["sae"].tasks["animal"].by_k[4].latents.accuracy
  assert found.value == pytest.approx(np.mean(accuracies), abs=0.02)


def test_a_result_has_its_controls(result):
  task = result["sae"].tasks["animal"]
  assert task.dense.accuracy.value > 0.7  # the word is among the tokens
  assert task.majority == 0.5
  for k, found in task.by_k.items():
    assert len(found.chosen) == k
    low, high = found.latents.accuracy.interval
    assert 0 <= low <= found.latents.accuracy.value <= high <= 1
    difference = found.latents.accuracy.value - found.control.accuracy.value
    assert found.above_control.accuracy.value == pytest.approx(difference)


def test_the_control_fires_as_often(lm, saes):
  x = np.random.default_rng(0).normal(size=(2000, 32)).astype(np.float32)
  x += 3
  for _, sae in saes.values():
    control = random_like(sae, x)
    l0 = [
      np.mean(np.sum(np.asarray(s.encode(x)) > 0, 1)) for s in (sae, control)
    ]
    assert l0[0] == pytest.approx(l0[1], rel=0.02)
    assert l0[0] > 1
    assert control.w_enc.shape == sae.w_enc.shape


def test_one_text_twice_is_not_in_training_and_test(lm, saes):
  given = texts()
  double = downstream.LabelledTexts(
    "animal", [*given.texts, *given.texts], [*given.labels, *given.labels]
  )
  sizes = [
    downstream.probe(lm, saes, [some], HOW)["sae"].tasks["animal"]
    for some in (given, double)
  ]
  assert sizes[0].train == sizes[1].train
  assert sizes[0].test == sizes[1].test


@pytest.mark.parametrize("devices", [(2, 1), (1, 2)])
def test_a_mesh_measures_the_same(lm_path, saes, result, devices):
  data, model = devices
  mesh = meshes.make(meshes.MeshConfig(data, model), jax.devices()[:2])
  spread = load_lm(lm_path, mesh=mesh)
  found = downstream.probe(spread, saes, [texts()], HOW)
  for name in saes:
    ours, theirs = (x[name].tasks["animal"].by_k[1] for x in (found, result))
    assert ours.chosen == theirs.chosen
    assert ours.latents.auc.value == pytest.approx(theirs.latents.auc.value)


def test_the_file_explains_itself(result, tmp_path):
  path = tmp_path / "eval" / "probing.json"
  downstream.write(result, path, texts="animal")
  found = json.loads(path.read_text())
  assert found["version"] == 1
  assert found["about"] == {"texts": "animal"}
  one = found["results"][0]["tasks"]["animal"]["by_k"]["4"]
  assert one.keys() - {"chosen"} < found["definitions"].keys()
  assert one["latents"]["accuracy"].keys() == {
    "value",
    "low",
    "high",
    "spread_over_seeds",
  }


def test_a_table_has_a_line_for_each_k(result):
  assert downstream.table(result, 80).row_count == 2 * len(HOW.ks)


def test_what_does_not_fit_is_told(lm, saes):
  wide = {"sae": (SITE, random_sae(16, 64, 0))}
  few = {"sae": (SITE, random_sae(32, 3, 0))}
  for given, match in ((wide, "width 16"), (few, "3 latents"), ({}, "nothing")):
    with pytest.raises(UserError, match=match):
      downstream.probe(lm, given, [texts()], HOW)
  with pytest.raises(UserError, match="one name"):
    downstream.probe(lm, saes, [texts(), texts()], HOW)
  with pytest.raises(UserError, match="at least 1"):
    Probing(ks=(0,))
