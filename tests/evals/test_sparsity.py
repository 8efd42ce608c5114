"""L0, FVU and density agree with NumPy's."""

import jax
import numpy as np
import pytest

from jaxsae.errors import UserError
from jaxsae.evals import Moments, measure_sparsity
from jaxsae.lm import Site, Taps
from jaxsae.sae import Sae
from jaxsae.token_batch import TokenBatch
from tests.evals import reference
from tests.evals.samples import (
  BOS,
  constant_sae,
  identity_sae,
  random_sae,
  random_transcoder,
  split,
)

SITES = [Site("resid", 0), Site("mlp", 0), Site("attn", 1)]


@pytest.fixture(scope="module")
def saes(lm):
  """Two autoencoders of one shape at the first site, one at each other."""
  made = {
    f"{site}/a": (site, random_sae(site.width(lm.config), 32, seed))
    for seed, site in enumerate(SITES)
  }
  return made | {"b": (SITES[0], random_sae(16, 32, 9, shift=0.5))}


@pytest.fixture(scope="module")
def measured(lm, saes, batches):
  return measure_sparsity(lm, saes, batches)


def test_figures_agree_with_numpy(lm, saes, batches, measured):
  for name, (site, sae) in saes.items():
    x = reference.activations(lm, batches, site)
    active = reference.latents(sae, x) > 0
    found = measured[0][name]
    assert found.tokens == len(x)
    assert found.l0 == pytest.approx(active.sum(axis=1).mean())
    assert 1 < found.l0 < 31
    np.testing.assert_allclose(found.density, active.mean(axis=0))
    assert found.dead == (~active.any(axis=0)).mean() > 0
    expected = reference.fvu(x, reference.reconstruct(sae, x))
    assert found.fvu == pytest.approx(expected, rel=1e-5)


def test_other_figures_agree_with_numpy(lm, saes, batches, measured):
  for name, (site, sae) in saes.items():
    y = reference.activations(lm, batches, site)
    made, found = reference.reconstruct(sae, y), measured[0][name]
    error, norm = y - made, lambda x: np.linalg.norm(x, axis=-1)
    spread = np.square(y - y.mean(0)).sum()
    expected = {
      "l1": reference.latents(sae, y).sum(1).mean(),
      "mse": np.square(error).sum(1).mean(),
      "normalised_mse": np.square(error).sum() / np.square(y).sum(),
      "cosine": ((y * made).sum(1) / norm(y) / norm(made)).mean(),
      "norm_ratio": (norm(made) / norm(y)).mean(),
      "reconstruction_bias": np.square(made).sum() / (made * y).sum(),
      "fvu_of_variances": np.square(error - error.mean(0)).sum() / spread,
      "gamma": norm(y.mean(0)) / np.sqrt(spread / len(y)),
    }
    for figure, value in expected.items():
      assert getattr(found, figure) == pytest.approx(value, rel=1e-5), figure
    assert found.documents == 24


def test_the_legacy_fvu_of_tokens_is_around_the_mean_of_a_step(lm, rows, saes):
  """SAELens took a batch's mean; here all rows are one step."""
  site, sae = saes["b"]
  y = reference.activations(lm, [rows], site)
  ratios = np.square(y - reference.reconstruct(sae, y)).sum(1) / np.square(
    y - y.mean(0)
  ).sum(1)
  found, _ = measure_sparsity(lm, {"b": (site, sae)}, [rows])
  assert found["b"].fvu_per_token == pytest.approx(ratios.mean(), rel=1e-5)


def test_a_reconstruction_of_zeros_has_no_direction(lm, batches):
  zero = constant_sae(16, np.zeros(16))
  found = measure_sparsity(lm, {"0": (SITES[0], zero)}, batches)[0]["0"]
  assert (found.cosine, found.norm_ratio, found.normalised_mse) == (0, 0, 1)
  assert np.isnan(found.reconstruction_bias)


def test_ratios_by_document_are_of_its_tokens(
  lm, saes, batches, rows, measured
):
  site, sae = saes["b"]
  figures, places = measured[0]["b"], {}
  for batch in batches:
    x = reference.activations(lm, [batch], site)
    own = batch.documents[reference.is_text(batch)]
    for document in sorted(set(own.tolist())):
      places.setdefault(document, len(places))
      active = (reference.latents(sae, x[own == document]) > 0).sum()
      place = places[document]
      assert figures.ratios["l0"][0][place] == active
      assert figures.ratios["l0"][1][place] == (own == document).sum()
  above, below = figures.ratios["fvu"]
  assert above.sum() / below.sum() == pytest.approx(figures.fvu, rel=1e-6)


def test_moments_agree_with_numpy(lm, batches, measured):
  assert set(measured[1]) == set(SITES)
  for site, found in measured[1].items():
    x = reference.activations(lm, batches, site)
    np.testing.assert_allclose(found.mean, x.mean(axis=0), atol=1e-6)
    deviation = np.square(x - x.mean(axis=0)).sum()
    assert found.squared_deviation == pytest.approx(deviation, rel=1e-6)


def test_batch_sizes_do_not_matter(lm, saes, rows, measured):
  found, moments = measure_sparsity(lm, saes, split(rows, 3, padding=1))
  same(found, measured[0])
  for site in SITES:
    expected = pytest.approx(measured[1][site].squared_deviation, rel=1e-6)
    assert moments[site].squared_deviation == expected


def test_only_text_counts(lm, saes, batches, measured):
  padding = jax.tree.map(np.zeros_like, batches[0])
  other_padding = padding.replace(tokens=np.full_like(padding.tokens, 7))
  special = TokenBatch(
    tokens=np.full_like(padding.tokens, BOS),
    segments=np.ones_like(padding.tokens),
    positions=padding.positions,
  )
  more = [special, padding, *batches, other_padding]
  found, _ = measure_sparsity(lm, saes, more)
  same(found, measured[0])


def test_the_identity_explains_everything(lm, batches):
  found, _ = measure_sparsity(lm, {"i": (SITES[0], identity_sae(16))}, batches)
  assert found["i"].fvu == pytest.approx(0, abs=1e-12)
  assert found["i"].l0 == 16


def test_a_constant_at_the_mean_explains_nothing_and_never_fires(
  lm, batches, measured
):
  mean = measured[1][SITES[0]].mean
  saes = {"mean": (SITES[0], constant_sae(16, mean))}
  found = measure_sparsity(lm, saes, batches)[0]["mean"]
  assert found.fvu == pytest.approx(1, abs=1e-6)
  assert (found.l0, found.dead) == (0, 1)


def test_fvu_is_accurate_if_the_mean_is_far_larger_than_deviations(lm, batches):
  table = lm.params["embedder"]["input_embedding"]
  far = lm.replace(
    params=lm.params | {"embedder": {"input_embedding": table + 2000}}
  )
  site = Site("resid", 1)
  parts = [reference.activations(far, [batch], site) for batch in batches]
  x = np.concatenate(parts)
  deviation = np.square(x - x.mean(axis=0)).sum() / np.square(x).sum()
  assert deviation < 1e-6  # too small for float32 to tell from 0

  near = constant_sae(16, x.mean(axis=0) + 1)
  found = measure_sparsity(far, {"near": (site, near)}, batches)[0]["near"]
  expected = reference.fvu(x, reference.reconstruct(near, x))
  rounding = off_by_rounded_means(parts)
  assert rounding < 0.005  # the distances of the means are 2% of it
  assert found.fvu == pytest.approx(expected, rel=1e-5 + rounding)


def off_by_rounded_means(parts):
  """Bounds the error of Σ‖x - x̄‖² that means of batches in float32 bring.

  A sum of n numbers is off by up to n 2⁻²⁴ max|x| for each of them, whatever
  the order in which XLA adds them. A mean x̄_b that is off by δ is that far from
  the batch's x and from the other means: Σ‖x - x̄‖² is off by up to
  Σ_b n_b (2 |x̄_b - x̄| δ + 2 δ²). Returned relative to Σ‖x - x̄‖².
  """
  x = np.concatenate(parts)
  off = 0.0
  for part in parts:
    delta = len(part) * 2.0**-24 * np.abs(part).max()
    distance = np.abs(part.mean(axis=0) - x.mean(axis=0))
    off += len(part) * (2 * distance * delta + 2 * delta**2).sum()
  return off / np.square(x - x.mean(axis=0)).sum()


def test_moments_add_in_any_order_and_to_empty_ones():
  x = np.random.default_rng(0).normal(5, 1, (50, 3))
  a, b, all_of_it = moments(x[:11]), moments(x[11:]), moments(x)
  nothing = Moments(0, np.zeros(3), 0.0)
  for joined in (a + b, b + a, nothing + a + b, a + nothing + b):
    assert joined.tokens == 50
    assert joined.squared_deviation == pytest.approx(
      all_of_it.squared_deviation
    )
    np.testing.assert_allclose(joined.mean, all_of_it.mean)
  assert (nothing + nothing).squared_deviation == 0


def moments(x):
  mean = x.mean(axis=0)
  return Moments(len(x), mean, np.square(x - mean).sum())


def test_constant_activations_have_no_fvu(lm, batches):
  still = jax.tree.map(np.zeros_like, lm.params)
  saes = {"i": (SITES[0], identity_sae(16))}
  found, _ = measure_sparsity(lm.replace(params=still), saes, batches)
  assert np.isnan(found["i"].fvu)


PAIR = Taps.transcoder(1)


@pytest.mark.parametrize("fields", [{}, {"w_skip": None}, {"k": 5}], ids=str)
def test_a_transcoder_reads_one_site_and_explains_another(lm, batches, fields):
  sae = random_transcoder(16, 32, 3, **fields)
  x = reference.activations(lm, batches, PAIR.input)
  y = reference.activations(lm, batches, PAIR.output)
  found, moments = measure_sparsity(lm, {"t": (PAIR, sae)}, batches)
  active = reference.latents(sae, x) > 0
  np.testing.assert_allclose(found["t"].density, active.mean(axis=0))
  expected = reference.fvu(y, reference.reconstruct(sae, x))
  assert found["t"].fvu == pytest.approx(expected, rel=1e-5)
  assert set(moments) == {*PAIR.reads, PAIR.output}
  np.testing.assert_allclose(
    moments[PAIR.output].mean, y.mean(axis=0), atol=1e-6
  )


def test_an_exact_transcoder_explains_everything(lm, batches, exact_transcoder):
  found, _ = measure_sparsity(lm, {"t": (PAIR, exact_transcoder)}, batches)
  assert found["t"].fvu == pytest.approx(0, abs=1e-9)
  assert (found["t"].l0, found["t"].dead) == (1, 0)


def test_only_k_latents_are_active(lm, batches):
  """TopK keeps k latents even if more exceed their thresholds."""
  sae = random_sae(16, 32, 0).replace(k=3)
  found, _ = measure_sparsity(lm, {"k": (SITES[0], sae)}, batches)
  assert found["k"].l0 == pytest.approx(3, abs=0.2)
  active = reference.latents(sae, reference.activations(lm, batches, SITES[0]))
  assert found["k"].l0 == pytest.approx((active > 0).sum(axis=1).mean())


def test_autoencoders_of_one_shape_compile_once(lm, batches, monkeypatch):
  traced, decode = [], Sae.decode

  def counting(self, latents):
    traced.append(self)
    return decode(self, latents)

  monkeypatch.setattr(Sae, "decode", counting)
  where = [SITES[0], SITES[1], SITES[0]]
  saes = {str(i): (site, random_sae(16, 7, i)) for i, site in enumerate(where)}
  measure_sparsity(lm, saes, batches)
  assert len(traced) == 1


@pytest.mark.parametrize("kept", [0, 1])
def test_batches_without_text_are_an_error(lm, saes, batches, kept):
  padding = jax.tree.map(np.zeros_like, batches[0])
  with pytest.raises(UserError, match="hold no text"):
    measure_sparsity(lm, saes, [padding] * kept)


def same(found, expected):
  assert found.keys() == expected.keys()
  for name, figures in found.items():
    assert figures.tokens == expected[name].tokens
    assert figures.fvu == pytest.approx(expected[name].fvu, rel=1e-6)
    np.testing.assert_array_equal(figures.density, expected[name].density)
