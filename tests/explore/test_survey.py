"""The survey of a tiny random language model agrees with NumPy."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsae.app.report import write
from jaxsae.errors import UserError
from jaxsae.explore import logit_effects
from jaxsae.explore import survey as survey_of
from jaxsae.lm import GemmaConfig, Lm, Site, Taps, capture, init_params
from jaxsae.sae import Sae
from jaxsae.token_batch import TokenBatch

pytestmark = pytest.mark.slow

CONFIG = GemmaConfig(
  vocab_size=64,
  num_layers=2,
  embed_dim=16,
  hidden_dim=32,
  num_heads=2,
  num_kv_heads=1,
  head_dim=8,
  query_pre_attn_scalar=8,
  window=5,
)
PAD, EOS, BOS = 0, 1, 2
ROWS, TIME, LATENTS = 12, 24, 22
WEAKER = 2
DEAD = 5
SITES = {"resid.1/a": Site("resid", 1), "attn.0/b": Site("attn", 0)}
METRICS = {
  "l0": 4.0,
  "fvu": 0.1,
  "delta_loss": 0.1,
  "loss_recovered_zero": 0.9,
  "loss_recovered_mean": 0.9,
  "dead": 0.0,
  "target_l0": None,
  "tokens": 1,
}


class Pieces:
  """The part of a tokenizer that the survey uses; it lacks ids of the LM."""

  bos, eos = BOS, EOS
  pieces = [f"<{i}>" for i in range(60)]  # noqa: RUF012


INIT = jax.jit(init_params, static_argnums=0)
LM = Lm(INIT(CONFIG, jax.random.key(0)), CONFIG, Pieces())


def make_sae(site, seed):
  """Makes latents of which a fifth fires on a token; DEAD never does."""
  rng = np.random.default_rng(seed)
  width = site.width(CONFIG)
  directions = rng.normal(size=(LATENTS, width))
  pre = ACTIVATIONS[site].reshape(-1, width) @ directions.T
  threshold = np.maximum(np.quantile(pre, 0.8, axis=0), 1e-3)
  threshold[DEAD] = 1e9
  return Sae(
    w_enc=jnp.float32(directions.T),
    b_enc=jnp.zeros(LATENTS),
    w_dec=jnp.float32(directions),
    b_dec=jnp.zeros(width),
    threshold=jnp.float32(threshold),
  )


def make_text():
  """Makes rows of several documents and padding; the last row is empty.

  No two documents begin alike, so that no two activations are the same.
  """
  first = iter(range(3, 60))
  rng = np.random.default_rng(0)
  shape = (ROWS, TIME)
  text = TokenBatch(
    tokens=rng.integers(3, 60, shape, dtype="i4"),
    segments=np.zeros(shape, "i4"),
    positions=np.zeros(shape, "i4"),
    documents=np.full(shape, -1, "i4"),
  )
  for row in range(ROWS - 1):
    ends = np.sort(2 * rng.choice(np.arange(2, TIME // 2), 3, replace=False))
    for segment, (at, end) in enumerate(zip([0, *ends], ends, strict=False), 1):
      here = (row, slice(at, end))
      text.tokens[row, at : at + 2] = BOS, next(first)
      text.tokens[row, end - 1] = EOS
      text.segments[here] = segment
      text.positions[here] = np.arange(end - at)
      text.documents[here] = rng.integers(5)
  text.tokens[text.segments == 0] = PAD
  return text


PAIR, MLP_IN = Taps.transcoder(1), Site("mlp_in", 1)


@jax.jit
def activations(lm, text):
  return capture(lm, text.tokens, *SITES.values(), MLP_IN, **text.packing)


TEXT = make_text()
ACTIVATIONS = jax.tree.map(np.asarray, activations(LM, TEXT))
SAES = {
  name: (site, make_sae(site, seed))
  for seed, (name, site) in enumerate(SITES.items())
}


def batches(rows):
  return (
    jax.tree.map(lambda x, at=at: x[at : at + rows], TEXT)
    for at in range(0, ROWS, rows)
  )


def look(rows=4, lm=LM, saes=SAES, **options):
  return survey_of(
    lm,
    saes,
    batches(rows),
    [f"document {i}" for i in range(5)],
    dict.fromkeys(saes, METRICS),
    title="A survey",
    run={"Language model": "tiny"},
    **{
      "contexts": 3,
      "weaker": WEAKER,
      "window": 6,
      "effects": 4,
      "neighbours": 3,
      **options,
    },
  )


REPORT = look()


def latents_of(name):
  """Returns latents [B, T, F] by NumPy, 0 outside text, and the mask."""
  site, sae = SAES[name]
  pre = ACTIVATIONS[site] @ np.asarray(sae.w_enc)
  mask = (TEXT.segments > 0) & ~np.isin(TEXT.tokens, (BOS, EOS))
  fires = (pre > np.asarray(sae.threshold)) & mask[..., None]
  return np.where(fires, pre, 0), mask


@pytest.mark.parametrize("sae", REPORT.saes, ids=lambda sae: sae.name)
def test_activity_agrees_with_numpy(sae):
  latents, mask = latents_of(sae.name)
  fires = (latents > 0).sum((0, 1))
  np.testing.assert_allclose(sae.density, fires / mask.sum())
  np.testing.assert_allclose(sae.max_activation, latents.max((0, 1)), rtol=1e-5)
  np.testing.assert_array_equal(sae.histogram.sum(axis=1), fires)


def strongest_rows(values, documents):
  """Returns the three best rows, at most two of a document, one if possible."""
  best = [row for row in np.argsort(-values, kind="stable") if values[row] > 0]
  chosen = []
  for most in (1, 2):
    for row in best:
      same = [x for x in chosen if documents[x] == documents[row]]
      if len(chosen) < 3 and len(same) < most and row not in chosen:
        chosen.append(row)
  return sorted(chosen, key=best.index)


@pytest.mark.parametrize("sae", REPORT.saes, ids=lambda sae: sae.name)
def test_contexts_agree_with_numpy(sae):
  latents, _ = latents_of(sae.name)
  contexts = sae.contexts
  for latent in range(LATENTS):
    times = latents[..., latent].argmax(axis=1)
    documents = TEXT.documents[np.arange(ROWS), times]
    rows = strongest_rows(latents[..., latent].max(axis=1), documents)
    assert contexts.top[latent] == len(rows)
    for k, row in enumerate(rows):
      at, time = (latent, k), times[row]
      peak = contexts.peak[at]
      np.testing.assert_allclose(
        contexts.activations[at][peak], latents[row, time, latent], rtol=1e-5
      )
      assert contexts.tokens[at][peak] == TEXT.tokens[row, time]
      assert contexts.position[at] == TEXT.positions[row, time]
      assert contexts.document[at] == TEXT.documents[row, time]


def test_weaker_contexts_are_weaker_than_the_top_ones():
  for sae in REPORT.saes:
    contexts = sae.contexts
    peak = contexts.peak[..., None]
    values = np.take_along_axis(contexts.activations, peak, axis=-1)[..., 0]
    assert (contexts.count > contexts.top).any()
    for at, count, top in zip(
      values, contexts.count, contexts.top, strict=True
    ):
      assert (np.diff(at[:count]) < 0).all()
      assert (at[:count] > 0).all()
      assert top <= 3 and count - top <= WEAKER


def test_no_peak_is_a_special_token():
  for sae in REPORT.saes:
    contexts = sae.contexts
    real = np.arange(3 + WEAKER)[None] < contexts.count[:, None]
    at_peak = np.take_along_axis(
      contexts.tokens, contexts.peak[..., None], axis=-1
    )[..., 0]
    assert real.sum() > LATENTS
    assert not np.isin(at_peak[real], (PAD, BOS, EOS, -1)).any()
    special = np.isin(contexts.tokens, (PAD, BOS, EOS, -1))
    assert (contexts.activations[special] == 0).all()


def test_a_latent_that_never_fires_is_empty():
  for sae in REPORT.saes:
    assert sae.density[DEAD] == sae.max_activation[DEAD] == 0
    assert sae.contexts.count[DEAD] == 0
    assert not sae.histogram[DEAD].any()


def test_batches_do_not_matter():
  for sae, other in zip(REPORT.saes, look(12).saes, strict=True):
    check_same(sae, other)


def test_chunks_of_latents_do_not_matter(monkeypatch):
  monkeypatch.setitem(survey_of.__globals__, "_CHUNK", 16)
  for sae, other in zip(REPORT.saes, look().saes, strict=True):
    check_same(sae, other)


@pytest.mark.parametrize("at_once", [16, 2048])
def test_topk_keeps_the_k_largest_of_all_latents(monkeypatch, at_once):
  """TopK's k largest are chosen over all chunks of latents."""
  monkeypatch.setitem(survey_of.__globals__, "_CHUNK", at_once)
  site, plain = SAES["resid.1/a"]
  (found,) = look(saes={"resid.1/a": (site, plain.replace(k=2))}).saes
  latents, mask = latents_of("resid.1/a")
  second = np.sort(latents, axis=-1)[..., -2, None]
  assert ((latents > 0).sum(axis=-1) > 2).any()
  fires = ((latents > 0) & (latents >= second)).sum((0, 1))
  np.testing.assert_allclose(found.density, fires / mask.sum())
  assert found.density.sum() <= 2


def test_a_transcoder_reads_its_input_and_writes_to_its_output():
  sae = make_sae(MLP_IN, 5)
  pair, read = look(saes={"pair": (PAIR, sae), "read": (MLP_IN, sae)}).saes
  np.testing.assert_array_equal(pair.density, read.density)
  np.testing.assert_array_equal(pair.contexts.tokens, read.contexts.tokens)
  assert pair.density.sum() > 1
  written = logit_effects(LM, Site("mlp", 1), sae.w_dec, 4)
  np.testing.assert_array_equal(pair.promoted, written.promoted)
  assert (pair.site, read.site) == ("transcoder.1", "mlp_in.1")


def test_a_site_that_only_the_mlp_reads_promotes_nothing(tmp_path):
  report = look(saes={"read": (MLP_IN, make_sae(MLP_IN, 5))})
  (sae,) = report.saes
  assert sae.promoted.shape == sae.suppressed_values.shape == (LATENTS, 0)
  write(report, tmp_path / "index.html")


def check_same(sae, other):
  left, right = (dataclasses.asdict(x) for x in (sae, other))
  assert left.pop("name") == right.pop("name")
  assert left.pop("site") == right.pop("site")
  assert left.pop("load") == right.pop("load")
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
    left,
    right,
  )


def test_each_autoencoder_keeps_its_name_site_and_order():
  assert [sae.name for sae in REPORT.saes] == list(SITES)
  assert [sae.site for sae in REPORT.saes] == ["resid.1", "attn.0"]
  assert [sae.width for sae in REPORT.saes] == [LATENTS, LATENTS]


def test_token_ids_unknown_to_the_tokenizer_have_a_name():
  assert len(REPORT.vocabulary) == CONFIG.vocab_size
  assert REPORT.vocabulary[59:61] == ["<59>", "<id 60>"]


def test_a_language_model_without_a_tokenizer_can_be_surveyed():
  bare = look(lm=LM.replace(tokenizer=None))
  assert bare.vocabulary[3] == "<id 3>"


def test_the_report_can_be_written(tmp_path):
  write(REPORT, tmp_path / "index.html")
  assert json.dumps("document 3") in (tmp_path / "index.html").read_text()


def test_an_autoencoder_of_another_site_is_named():
  sae = SAES["attn.0/b"][1]
  narrow = sae.replace(w_dec=sae.w_dec[:, :8])
  with pytest.raises(UserError, match=r"a writes .* 8\b.* attn\.0 .* 16\b"):
    look(saes={"a": (Site("attn", 0), narrow)})


def test_a_transcoder_that_reads_another_site_is_named():
  sae = make_sae(MLP_IN, 5)
  narrow = sae.replace(w_enc=sae.w_enc[:8])
  with pytest.raises(UserError, match=r"reads .* 8\b.* mlp_in\.1 .* 16\b"):
    look(saes={"a": (PAIR, narrow)})


def test_a_layer_that_is_not_there_is_named():
  with pytest.raises(UserError, match=r"resid\.7"):
    look(saes={"a": (Site("resid", 7), SAES["resid.1/a"][1])})


PADDING = jax.tree.map(lambda x: x[[-1] * 4], TEXT)


@pytest.mark.parametrize("text", [[], [PADDING]], ids=["none", "padding"])
def test_batches_without_text_are_an_error(text):
  options = {"title": "", "run": {}}
  metrics = dict.fromkeys(SAES, METRICS)
  with pytest.raises(UserError, match="no text"):
    survey_of(LM, SAES, text, [], metrics, **options)


def test_metrics_of_other_autoencoders_are_refused_before_the_survey():
  with pytest.raises(ValueError, match="other"):
    survey_of(LM, SAES, None, [], {"other": METRICS}, title="", run={})
