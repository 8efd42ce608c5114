"""Losses with a site spliced and ablated agree with NumPy's."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsae.errors import UserError
from jaxsae.evals import Fidelity, measure_fidelity
from jaxsae.lm import Site, Taps
from jaxsae.sae import Sae
from tests.evals import reference
from tests.evals.samples import (
  constant_sae,
  identity_sae,
  random_sae,
  random_transcoder,
  split,
)

pytestmark = pytest.mark.slow

RESID, ATTN = Site("resid", 0), Site("attn", 1)
PAIR = Taps.transcoder(1)


@pytest.fixture(scope="module")
def means(lm, batches):
  return {
    site: reference.activations(lm, batches, site).mean(axis=0)
    for site in (RESID, ATTN, PAIR.output)
  }


@pytest.fixture(scope="module")
def saes(means, exact_transcoder):
  return {
    "a": (RESID, random_sae(16, 32, 0)),
    "b": (RESID, random_sae(16, 32, 1)),
    "attn": (ATTN, random_sae(24, 32, 2)),
    "identity": (RESID, identity_sae(16)),
    "zero": (RESID, constant_sae(16, np.zeros(16))),
    "mean": (RESID, constant_sae(16, means[RESID])),
    "pair": (PAIR, random_transcoder(16, 32, 3)),
    "exact_transcoder": (PAIR, exact_transcoder),
  }


@pytest.fixture(scope="module")
def measured(lm, saes, means, batches):
  return measure_fidelity(lm, saes, means, batches)


@pytest.mark.parametrize("name", ["a", "b", "attn", "pair"])
def test_losses_agree_with_numpy(lm, saes, means, batches, measured, name):
  site, sae = saes[name]
  found = measured[name]
  clean, tokens = reference.loss(lm, batches)
  assert found.tokens == tokens
  assert found.clean_loss == pytest.approx(clean, rel=1e-5)
  mean = means[Taps.of(site).writes[0]]
  for loss, replace in (
    (found.spliced_loss, lambda x: reference.reconstruct(sae, x)),
    (found.zero_loss, np.zeros_like),
    (found.mean_loss, lambda x: np.broadcast_to(mean, x.shape)),
  ):
    expected, _ = reference.loss(lm, batches, site, replace)
    assert loss == pytest.approx(expected, rel=1e-5)
    assert abs(loss - clean) > 1e-3  # it does change something


def test_ratios_follow_their_definitions():
  found = Fidelity(
    tokens=1, clean_loss=2.0, spliced_loss=2.5, zero_loss=10.0, mean_loss=4.0
  )
  assert found.delta_loss == 0.5
  assert found.loss_recovered_zero == 7.5 / 8
  assert found.loss_recovered_mean == 1.5 / 2


def test_recovered_loss_is_nan_if_ablation_changes_nothing():
  found = Fidelity(
    tokens=1, clean_loss=2.0, spliced_loss=2.5, zero_loss=2.0, mean_loss=2.0
  )
  assert np.isnan(found.loss_recovered_zero)
  assert np.isnan(found.loss_recovered_mean)


@pytest.mark.parametrize(
  ("error", "recovered"),
  [(0.0, 0.5), (0.49, 0.5), (0.51, np.nan), (np.inf, np.nan)],
)
def test_a_loss_within_its_error_of_zero_has_no_shares(error, recovered):
  found = Fidelity(1, 2.0, 2.5, 3.0, 3.0, zero_error=error, mean_error=error)
  np.testing.assert_equal(found.loss_recovered_zero, recovered)
  np.testing.assert_equal(found.loss_recovered_mean, recovered)


def test_an_ablation_that_helps_has_no_shares():
  found = Fidelity(1, 2.0, 1.8, 1.9, 1.5)
  assert np.isnan([found.loss_recovered_zero, found.loss_recovered_mean]).all()


def test_a_random_model_has_no_recovered_loss(measured):
  """Where the ablated loss is below the clean one, by chance."""
  helped = [f for f in measured.values() if f.zero_loss < f.clean_loss]
  assert helped
  assert all(np.isnan(found.loss_recovered_zero) for found in helped)


@pytest.mark.parametrize("name", ["a", "attn", "pair", "exact_transcoder"])
def test_the_divergence_is_that_of_numpys_distributions(
  lm, saes, means, batches, measured, name
):
  site, sae = saes[name]
  mean = means[Taps.of(site).writes[0]]
  for kl, replace in (
    (measured[name].kl, lambda x: reference.reconstruct(sae, x)),
    (measured[name].zero_kl, np.zeros_like),
    (measured[name].mean_kl, lambda x: np.broadcast_to(mean, x.shape)),
  ):
    expected = reference.kl(lm, batches, site, replace)
    assert kl == pytest.approx(expected, rel=1e-3, abs=1e-6)
  assert measured["a"].kl > 1e-3


def test_added_loss_is_told_apart_by_position_and_kind(
  lm, saes, means, batches, rows, measured
):
  """Of a reconstruction that is wrong, on all tokens but the first."""
  saes = {"zero": saes["zero"]}
  kind = lambda document: "even" if document % 2 == 0 else "odd"
  found = measure_fidelity(lm, saes, means, batches, kind=kind)["zero"]
  assert found.by_kind.labels == ("even", "odd")
  counted = (rows.segments[:, 1:] == rows.segments[:, :-1]) & (
    rows.segments[:, 1:] > 0
  )
  even = counted & (rows.documents[:, 1:] % 2 == 0)
  assert found.by_kind.tokens == (even.sum(), counted.sum() - even.sum())
  position = rows.positions[:, :-1][counted]
  assert found.by_position.labels == ("0", "1-2", "3-6")
  bins = [position < 1, (position >= 1) & (position < 3), position >= 3]
  assert found.by_position.tokens == tuple(x.sum() for x in bins)
  # Nothing is in place of BOS, so its prediction stays as it is.
  assert found.by_position.delta_loss[0] == pytest.approx(0, abs=1e-6)
  for groups in (found.by_kind, found.by_position):
    total = np.dot(groups.tokens, groups.delta_loss) / found.tokens
    assert total == pytest.approx(found.delta_loss, rel=1e-6)


def test_intervals_are_made_of_documents(lm, saes, means, rows, measured):
  """Each document's sums are those of the text that holds it alone."""
  added, tokens = measured["a"].ratios["delta_loss"]
  assert tokens.sum() == measured["a"].tokens
  assert added.sum() / tokens.sum() == pytest.approx(measured["a"].delta_loss)
  assert len(tokens) == len(set(rows.documents[rows.segments > 0].tolist()))
  alone = rows.replace(
    segments=np.where(rows.documents == rows.documents[3, 0], rows.segments, 0)
  )
  one = measure_fidelity(lm, {"a": saes["a"]}, means, split(alone, 4))["a"]
  place = np.flatnonzero(tokens == one.tokens)
  found = added[place] / tokens[place]
  assert np.isclose(found, one.delta_loss, rtol=1e-4).any()


def test_the_identity_loses_nothing(measured):
  assert measured["identity"].delta_loss == pytest.approx(0, abs=1e-6)


def test_an_exact_transcoder_loses_nothing(measured):
  assert measured["exact_transcoder"].delta_loss == pytest.approx(0, abs=1e-5)
  assert measured["exact_transcoder"].zero_loss == measured["pair"].zero_loss


def test_a_reconstruction_of_zero_recovers_nothing_of_zero_ablation(measured):
  found = measured["zero"]
  assert found.spliced_loss == pytest.approx(found.zero_loss, abs=1e-5)


def test_a_reconstruction_of_the_mean_recovers_nothing_of_mean_ablation(
  measured,
):
  found = measured["mean"]
  assert found.spliced_loss == pytest.approx(found.mean_loss, abs=1e-5)


def test_how_rows_are_cut_into_batches_does_not_matter(
  lm, saes, means, rows, measured
):
  saes = {"a": saes["a"]}
  same(measure_fidelity(lm, saes, means, split(rows, 3, padding=1)), measured)


def test_padding_does_not_matter(lm, saes, means, batches, measured):
  padding = jax.tree.map(np.zeros_like, batches[0])
  other = [
    b.replace(tokens=np.where(b.segments > 0, b.tokens, 7)) for b in batches
  ]
  assert (other[0].tokens != batches[0].tokens).any()
  found = measure_fidelity(lm, saes, means, [padding, *other])
  same(found, measured)


def test_special_tokens_are_not_edited(lm, saes, means, batches):
  """Without any text, every edit leaves the loss as it is."""
  special = jax.tree.map(np.copy, batches[0])
  special.tokens[:] = lm.tokenizer.bos
  measured = measure_fidelity(lm, saes, means, [special])
  for found in (measured["a"], measured["pair"]):
    clean = [found.spliced_loss, found.zero_loss, found.mean_loss]
    assert clean == pytest.approx([found.clean_loss] * 3, rel=1e-7)


def test_the_splice_keeps_the_precision_of_the_model(lm, means, batches):
  config = dataclasses.replace(lm.config, num_layers=1)  # compiles sooner
  half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), lm)
  half = half.replace(config=config)
  saes = {"identity": (RESID, identity_sae(16))}
  found = measure_fidelity(half, saes, means, batches)["identity"]
  assert found.delta_loss == 0


def test_autoencoders_of_one_shape_compile_once(
  lm, means, batches, monkeypatch
):
  traced, encode = [], Sae.encode

  def counting(self, x):
    traced.append(self)
    return encode(self, x)

  monkeypatch.setattr(Sae, "encode", counting)
  saes = {str(seed): (RESID, random_sae(16, 8, seed)) for seed in range(3)}
  measure_fidelity(lm, saes, means, batches)
  assert len(traced) == 1


def test_batches_without_a_token_to_predict_are_an_error(lm, saes, means):
  with pytest.raises(UserError, match="no token to predict"):
    measure_fidelity(lm, saes, means, [])


def same(found, expected):
  for name, figures in found.items():
    for field in dataclasses.fields(figures):
      if field.type is float or field.name == "tokens":
        value = getattr(figures, field.name)
        assert value == pytest.approx(
          getattr(expected[name], field.name), rel=2e-6
        )
