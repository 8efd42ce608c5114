"""One latent per letter absorbs nothing, and one for a few words absorbs it."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxsae import load_lm
from jaxsae.errors import UserError
from jaxsae.evals.downstream import first_letter
from jaxsae.evals.downstream.first_letter import measure_absorption
from jaxsae.evals.downstream.pool import Pooled
from jaxsae.lm import Taps
from tests.evals.samples import make_sae, random_sae, random_transcoder

pytestmark = pytest.mark.slow

LETTERS = "abcdefghijklmnopqrstuvwxyz"


@pytest.fixture(scope="module")
def lm():
  return load_lm("gemma2-tiny")


@pytest.fixture
def spelling(lm, monkeypatch):
  """Activations that spell: coordinate i of 128 is the letter i, and noise."""

  def read(lm, placed, rows, pool):
    assert pool == "last"
    rng = np.random.default_rng(0)
    words = [lm.tokenizer.pieces[row[-1]].strip() for row in rows]
    x = rng.normal(0, 0.1, (len(rows), 128)).astype(np.float32)
    x[range(len(rows)), [LETTERS.index(w[0].lower()) for w in words]] += 3
    x[:, 100] = [3 * w.lower().startswith("sk") for w in words]
    name, (taps, sae) = next(iter(placed.items()))
    latents = first_letter.sparse.csr_matrix(
      np.asarray(sae.encode(jnp.asarray(x)))
    )
    return Pooled({name: latents}, {taps.reads: x})

  monkeypatch.setattr(first_letter, "pooled", read)
  return lm


def letters_sae(absorbs):
  """One latent per letter, of which that of "s" may be silent on "sk"."""
  w_enc, w_dec = np.zeros((128, 32)), np.zeros((32, 128))
  for i in range(26):
    w_enc[i, i] = w_dec[i, i] = 1
  if absorbs:
    w_enc[100, 18] = -2
    w_enc[100, 30] = 1
    w_dec[30, [18, 100]] = 1
  return make_sae(w_enc, np.zeros(32), w_dec, np.zeros(128), np.full(32, 1.0))


def test_a_latent_for_each_letter_absorbs_nothing(spelling):
  found = measure_absorption(spelling, {"a": ("resid.3", letters_sae(False))})
  result = found["a"]
  assert result.is_defined
  for name, letter in result.letters.items():
    assert letter.probe_f1 == 1
    assert letter.main == (LETTERS.index(name),)
  assert result.mean("absorption_fraction") == (0, 0)
  assert result.mean("full_absorption")[0] == 0
  assert result.mean("splits") == (1, 0)


def test_a_latent_of_some_words_absorbs_their_letter(spelling):
  found = measure_absorption(spelling, {"a": ("resid.3", letters_sae(True))})
  words = first_letter._Words.draw(spelling, 16_384, np.random.default_rng(0))
  texts = [
    spelling.tokenizer.pieces[row[-1]].strip().lower()
    for row, is_test in zip(words.rows, words.is_test, strict=True)
    if is_test
  ]
  own = [text for text in texts if text[0] == "s"]
  absorbed = np.mean([text.startswith("sk") for text in own])
  letter = found["a"].letters["s"]
  assert letter.main == (18,)
  assert letter.words == len(own)
  assert absorbed > 0.01
  assert letter.absorption_fraction == pytest.approx(absorbed)
  assert letter.full_absorption == pytest.approx(absorbed)
  assert found["a"].letters["t"].absorption_fraction == 0


def test_a_word_stands_at_the_end_of_words_spelled_of_its_part(lm):
  words = first_letter._Words.draw(lm, 200, np.random.default_rng(0))
  for row, letter in zip(words.rows, words.letters, strict=True):
    assert row[0] == lm.tokenizer.bos
    assert lm.tokenizer.pieces[row[-1]].strip()[0].lower() == letter
    text = lm.tokenizer.decode(row[:-1])
    assert text.count("has the first letter:") >= 9
  assert words.is_test.sum() == 40


def test_without_letters_that_are_told_there_is_no_figure(lm):
  """A random autoencoder on the embedding of few words."""
  sae = random_sae(128, 64, 0)
  result = measure_absorption(lm, {"a": ("resid.0", sae)}, words=500)["a"]
  assert not result.is_defined
  assert result.mean("absorption_fraction") is None
  told = [x for x in result.letters.values() if x.probe_f1 > 0.6]
  assert result.told == told
  json = result.to_json()
  assert json["mean"]["absorption_fraction"] is None
  assert "F1" in json["verdict"]


def test_what_has_no_projection_is_refused(lm):
  pair = {"pair": (Taps.transcoder(1), random_transcoder(128, 64, 0))}
  with pytest.raises(UserError, match="other sites"):
    measure_absorption(lm, pair)
