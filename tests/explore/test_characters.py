"""Bytes are shown as the characters that they spell, as Python decodes them."""

import dataclasses

import numpy as np
import pytest

from jaxsae.explore.characters import with_characters
from jaxsae.explore.report import Contexts, Report, SaeReport

WORDS = ["a", " b", "<bos>"]
VOCABULARY = [*WORDS, *(f"<0x{i:02X}>" for i in range(256)), "last", "<0xc3>"]
FIRST = len(WORDS)  # the id of byte 0


def make_report(tokens, activations=None, peak=None):
  """Makes a report with one latent whose contexts are rows of tokens."""
  tokens = np.asarray(tokens, np.int32)[None]
  shape = tokens.shape[:2]
  zeros = np.zeros(shape, np.int32)
  if activations is None:
    activations = np.ones(tokens.shape)
  contexts = Contexts(
    tokens=tokens,
    activations=np.asarray(activations, np.float32).reshape(tokens.shape),
    peak=zeros if peak is None else np.asarray([peak]),
    position=zeros,
    document=zeros,
    count=np.array([shape[1]]),
    top=np.array([shape[1]]),
  )
  one = np.zeros((1, 1), np.int32)
  sae = SaeReport(
    "a", "resid.3", 1, {}, one[0], one[0], one, contexts,
    one, one, one, one, one, one,
  )  # fmt: skip
  return Report("", {}, [sae], VOCABULARY, ["document"])


def shown(report, context=0):
  tokens = report.saes[0].contexts.tokens[0, context]
  return [report.vocabulary[i] if i >= 0 else None for i in tokens]


def spelt(text):
  return [FIRST + byte for byte in text.encode()]


@pytest.mark.parametrize(
  "text", ["$", "é", "ש", "日", "🙂", "é日🙂$\n", "👩\u200d💻"]
)
def test_bytes_become_the_characters_that_they_spell(text):
  report = with_characters(make_report([[0, *spelt(text), 1]]))
  assert [x for x in shown(report) if x is not None] == ["a", *text, " b"]
  assert len(shown(report)) == len(text.encode()) + 2


@pytest.mark.parametrize("seed", range(20))
def test_any_bytes_are_decoded_as_python_does(seed):
  """What is no character stays a byte, also where a character is cut off."""
  rng = np.random.default_rng(seed)
  pool = "aé日🙂ש".encode() + bytes([0xC0, 0xE0, 0xED, 0xA0, 0xF4, 0x90, 0xF8])
  ids = rng.integers(0, 256, (50, 9))
  ids[::2] = rng.choice(list(pool), (25, 9))
  report = with_characters(make_report(FIRST + ids))
  for context, values in enumerate(ids):
    text = bytes(values.tolist()).decode(errors="surrogateescape")
    wanted = [
      f"<0x{ord(x) - 0xDC00:02X}>" if 0xDC80 <= ord(x) <= 0xDCFF else x
      for x in text
    ]
    found = [x for x in shown(report, context) if x is not None]
    assert found == wanted


def test_a_character_has_the_strongest_activation_of_its_bytes():
  tokens = [[0, *spelt("日"), 1]]
  report = make_report(tokens, [[1, 2, 7, 3, 4]], peak=[2])
  contexts = with_characters(report).saes[0].contexts
  assert contexts.activations[0, 0].tolist() == [1, 7, 0, 0, 4]
  assert contexts.peak[0, 0] == 1


def test_a_peak_elsewhere_stays_where_it_is():
  report = make_report([[*spelt("é"), 0, 1]], peak=[3])
  assert with_characters(report).saes[0].contexts.peak[0, 0] == 3


def test_a_word_between_two_bytes_keeps_them_apart():
  first, second = spelt("é")
  report = with_characters(make_report([[first, 0, second]]))
  assert shown(report) == ["<0xC3>", "a", "<0xA9>"]


def test_other_pieces_and_missing_tokens_stay_as_they_are():
  tokens = [[-1, 0, 1, 2, len(VOCABULARY) - 1], [-1] * 5]
  report = with_characters(make_report(tokens))
  assert shown(report) == [None, "a", " b", "<bos>", "<0xc3>"]
  assert shown(report, 1) == [None] * 5


def test_a_promoted_byte_that_is_a_character_is_shown_as_it():
  report = make_report([[0]])
  sae = dataclasses.replace(report.saes[0], promoted=np.array([spelt("$")]))
  report = with_characters(dataclasses.replace(report, saes=[sae]))
  assert report.vocabulary[report.saes[0].promoted[0, 0]] == "$"


def test_the_report_that_is_given_does_not_change():
  report = make_report([spelt("日")])
  with_characters(report)
  assert report.saes[0].contexts.tokens[0, 0].tolist() == spelt("日")
