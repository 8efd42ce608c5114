"""Controls are what they claim to be, in NumPy, and are fitted as well."""

import numpy as np
import pytest

from jaxsae import mesh as meshes
from jaxsae.evals import evaluate, make_controls
from jaxsae.lm import Site, Taps
from tests.evals import reference
from tests.evals.samples import random_sae, random_transcoder

pytestmark = pytest.mark.slow

RESID, PAIR = Site("resid", 0), Taps.transcoder(1)
L0 = {"a": 5.4, "b": 5.1, "c": 9.0, "t": 3.0}


@pytest.fixture(scope="module")
def placed():
  return {
    "a": (Taps.of(RESID), random_sae(16, 32, 0)),
    "b": (Taps.of(RESID), random_sae(16, 32, 1)),  # of the same L0
    "c": (Taps.of(RESID), random_sae(16, 32, 1)),
    "t": (PAIR, random_transcoder(16, 32, 3)),
  }


@pytest.fixture(scope="module")
def controls(lm, placed, rows):
  return make_controls(lm, placed, L0, [rows])


@pytest.fixture(scope="module")
def text(lm, rows):
  return {
    site: reference.activations(lm, [rows], site)
    for site in (RESID, *PAIR.sites)
  }


def reconstruction(controls, text, name, kind):
  taps, sae = controls.saes[controls.of[name][kind]]
  x, y = text[taps.reads[0]], text[taps.writes[0]]
  return x, y, reference.reconstruct(sae, x), sae


def test_each_is_made_once_for_sites_width_and_l0(controls):
  assert controls.of["a"] == controls.of["b"]
  assert set(controls.of["a"]) == {"random_decoder", "random_encoder", "pca"}
  of_c = set(controls.of["c"].values())
  assert not of_c & set(controls.of["a"].values())
  assert len(controls.saes) == 9


@pytest.mark.parametrize("name", ["a", "c"])
def test_pca_is_the_projection_on_so_many_components(controls, text, name):
  _, y, made, _ = reconstruction(controls, text, name, "pca")
  _, _, axes = np.linalg.svd(y - y.mean(0), full_matrices=False)
  axes = axes[: round(L0[name])]
  expected = y.mean(0) + (y - y.mean(0)) @ axes.T @ axes
  np.testing.assert_allclose(made, expected, atol=1e-4)


@pytest.mark.parametrize("name", L0)
def test_the_l0_of_pca_is_its_rank(controls, text, name):
  x, _, _, sae = reconstruction(controls, text, name, "pca")
  assert (reference.latents(sae, x) > 0).sum(1).tolist() == [
    round(L0[name])
  ] * len(x)


def test_of_a_transcoder_it_is_the_regression_of_reduced_rank(controls, text):
  x, y, made, _ = reconstruction(controls, text, "t", "pca")
  x, y_rest = x - x.mean(0), y - y.mean(0)
  best = np.linalg.lstsq(x, y_rest, rcond=None)[0]
  _, _, axes = np.linalg.svd(x @ best, full_matrices=False)
  expected = y.mean(0) + x @ best @ axes[:3].T @ axes[:3]
  np.testing.assert_allclose(made, expected, atol=1e-3)


@pytest.mark.parametrize("name", ["a", "t"])
@pytest.mark.parametrize("kind", ["random_decoder", "random_encoder"])
def test_no_other_scale_or_bias_fits_better(controls, text, name, kind):
  _, y, made, _ = reconstruction(controls, text, name, kind)
  centred, rest = made - made.mean(0), y - y.mean(0)
  best = (centred * rest).sum() / np.square(centred).sum()
  assert best == pytest.approx(1, abs=1e-3)
  np.testing.assert_allclose(made.mean(0), y.mean(0), atol=1e-4)


@pytest.mark.parametrize("name", ["a", "c", "t"])
def test_random_latents_have_the_l0_that_is_asked_for(controls, text, name):
  x, _, _, sae = reconstruction(controls, text, name, "random_encoder")
  l0 = (reference.latents(sae, x) > 0).sum(1).mean()
  assert l0 == pytest.approx(L0[name], rel=0.05)


def test_random_directions_keep_the_latents(controls, placed, text):
  _, _, _, sae = reconstruction(controls, text, "a", "random_decoder")
  own = placed["a"][1]
  np.testing.assert_array_equal(
    reference.latents(sae, text[RESID]), reference.latents(own, text[RESID])
  )
  norms = np.linalg.norm(sae.w_dec, axis=1)
  np.testing.assert_allclose(norms, norms[0], rtol=1e-5)


def test_of_topk_the_controls_are_topk(lm, rows, text):
  sae = random_sae(16, 32, 0).replace(k=4, threshold=np.zeros(32, np.float32))
  placed = {"k": (Taps.of(RESID), sae)}
  made = make_controls(lm, placed, {"k": 4.0}, [rows])
  x, _, _, control = reconstruction(made, text, "k", "random_encoder")
  assert control.k == 4
  assert (reference.latents(control, x) > 0).sum(1).mean() > 3.9


def test_a_mesh_makes_the_same_controls(lm, placed, controls, rows):
  mesh = meshes.make(meshes.MeshConfig(data=2, model=2))
  found = make_controls(lm.replace(mesh=mesh), placed, L0, [rows])
  for name, (_, sae) in controls.saes.items():
    if not name.startswith("pca"):  # whose axes may have either sign
      other = found.saes[name][1]
      for a, b in zip(vars(sae).values(), vars(other).values(), strict=True):
        if a is not None:
          np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


def test_a_result_has_the_figures_of_its_controls(lm, placed, batches):
  found = evaluate(lm, placed, lambda: batches, 2, control_batches=1)
  one = found["a"].controls
  assert set(one) == {"random_decoder", "random_encoder", "pca"}
  first = reference.activations(lm, batches[:1], RESID)
  assert {control.tokens for control in one.values()} == {len(first)}
  record = found["a"].to_json()["controls"]["pca"]
  assert record["fvu"] == one["pca"].fvu
  assert record["l0"] == round(found["a"].l0)
  assert one["pca"].fvu < one["random_encoder"].fvu <= 1.0001
