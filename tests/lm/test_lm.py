"""`Lm` describes its weights to packages that do not name parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsae.errors import UserError
from jaxsae.lm import Site, capture, edit, load_lm


def normed(x):
  return x / np.sqrt(np.mean(np.square(x), axis=-1, keepdims=True) + 1e-6)


def test_the_unembedding_turns_the_stream_into_logits(lm):
  tokens = jnp.arange(4, 20)[None]
  last = Site("resid", lm.config.num_layers - 1)
  x = normed(np.asarray(capture(lm, tokens, last)[last]))
  table, gain = map(np.asarray, lm.unembedding())
  assert table.shape == (lm.config.vocab_size, last.width(lm.config))
  logits, cap = (x * gain) @ table.T, lm.config.final_softcap
  expected = logits if cap is None else cap * np.tanh(logits / cap)
  np.testing.assert_allclose(lm.logits(tokens), expected, atol=1e-4)


@pytest.mark.parametrize("where", ["mlp", "mlp_in"])
def test_the_gain_is_that_of_the_norm_that_ends_at_the_site(
  grouped, tokens, where
):
  site = Site(where, 1)
  x = np.asarray(capture(grouped, tokens, site)[site])
  np.testing.assert_allclose(
    np.mean(np.square(x / grouped.norm_gain(site)), axis=-1), 1, rtol=1e-3
  )


def test_the_gain_of_a_pair_is_its_inputs_and_in_float32(grouped):
  half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), grouped)
  gain = half.norm_gain(Site("mlp_in", 2))
  scale = np.float32(half.params["layer_2"]["pre_ffw_norm"]["scale"])
  np.testing.assert_array_equal(gain, 1 + scale)
  assert gain.dtype == np.float32


def test_directions_of_attn_reach_the_stream_through_its_output(
  grouped, tokens
):
  """They agree up to the division by the norm's RMS, for one token."""
  site = Site("attn", 0)
  directions = np.random.default_rng(0).normal(size=(3, 64)).astype(np.float32)
  found = np.asarray(grouped.to_stream(site, directions))
  end = Site("resid", 0)
  mute = {Site("mlp", 0): lambda x: 0 * x}

  def stream(direction):
    seen = {}
    read = {end: lambda x: seen.setdefault("x", x)}
    edit(grouped, tokens, mute | read | {site: lambda x: 0 * x + direction})
    return np.asarray(seen["x"])

  before = stream(np.zeros((1, 1, 64), np.float32))
  for direction, expected in zip(directions, found, strict=True):
    added = stream(direction[None, None]) - before
    gain = 1 + np.asarray(
      grouped.params["layer_0"]["post_attention_norm"]["scale"]
    )
    np.testing.assert_allclose(
      added[0, 0], gain * normed(expected / gain), rtol=1e-3, atol=1e-3
    )


@pytest.mark.parametrize("where", ["resid", "mlp"])
def test_other_directions_lie_in_the_stream(grouped, where):
  directions = np.eye(32, dtype=np.float32)[:3]
  written = grouped.to_stream(Site(where, 1), directions)
  np.testing.assert_array_equal(written, directions)


@pytest.mark.parametrize(
  "ask, said",
  [
    (lambda lm: lm.norm_gain(Site("resid", 1)), r"resid\.1.*mlp_in or mlp"),
    (lambda lm: lm.norm_gain(Site("mlp", 4)), r"mlp\.4.*0 to 3"),
    (lambda lm: lm.to_stream(Site("mlp_in", 1), None), r"mlp_in\.1.*mlp\.1"),
    (lambda lm: lm.to_stream(Site("attn", 9), None), r"attn\.9.*0 to 3"),
  ],
)
def test_the_error_about_a_gain_or_stream_names_the_site(grouped, ask, said):
  with pytest.raises(UserError, match=said):
    ask(grouped)


def test_tokens_that_are_excluded_are_no_text():
  lm = load_lm("gemma2-tiny")
  tokens = np.array([[lm.tokenizer.bos, 300, 301, 302]])
  pieces = lm.tokenizer.pieces
  other = lm.excluding([pieces[300], "302"])
  segments = np.ones_like(tokens)
  np.testing.assert_array_equal(lm.text_mask(tokens, segments), [[0, 1, 1, 1]])
  found = other.text_mask(tokens, segments)
  np.testing.assert_array_equal(found, [[0, 0, 1, 0]])
  assert other.excluding(["301"]).excluded == (300, 301, 302)


@pytest.mark.parametrize("token", ["<no such token>", "99999999"])
def test_a_token_that_is_not_in_the_vocabulary_is_named(token):
  with pytest.raises(UserError, match=token):
    load_lm("gemma2-tiny").excluding([token])


def test_one_token_to_exclude_may_come_alone():
  lm = load_lm("gemma2-tiny")
  piece = lm.tokenizer.pieces[300]
  assert lm.excluding(piece).excluded == (300,)
  assert lm.excluding([301]).excluded == lm.excluding(301).excluded == (301,)


def test_a_site_may_be_text(grouped):
  by_text = grouped.norm_gain("mlp.1")
  np.testing.assert_array_equal(by_text, grouped.norm_gain(Site("mlp", 1)))
  directions = np.eye(32, dtype=np.float32)[:3]
  written = grouped.to_stream("resid.1", directions)
  np.testing.assert_array_equal(written, directions)
