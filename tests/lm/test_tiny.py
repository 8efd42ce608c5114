"""The language model that ships with jaxsae is small and trained."""

import pathlib

import numpy as np

from experiments.pretraining import held_out_loss
from jaxsae import data
from jaxsae.lm import gemma2_tiny, load_lm
from jaxsae.lm.weights import SHIPPED


def test_the_shipped_model_is_small_and_complete():
  folder = SHIPPED["gemma2-tiny"]
  assert sum(f.stat().st_size for f in folder.iterdir()) <= 8_000_000
  lm = load_lm("gemma2-tiny")
  assert lm.config == gemma2_tiny()
  assert lm.tokenizer.vocab_size == lm.config.vocab_size


def test_the_shipped_model_predicts_text_it_never_read(tmp_path):
  """Its loss on held-out files is far below that of a bigram model."""
  lm = load_lm("gemma2-tiny")
  corpus = data.open_corpus(
    data.DataConfig(documents=300, cache=str(tmp_path)), lm.tokenizer
  )
  batches = list(data.held_out_batches(corpus, 16))[:4]
  assert held_out_loss(lm, batches) < 2.6


def test_its_tokenizer_restores_any_text():
  tokenizer = load_lm("gemma2-tiny").tokenizer
  text = pathlib.Path(np.__file__).read_text() + "\tπ ≠ 3\r\n  漢字 \x00"
  assert tokenizer.decode(tokenizer.encode([text])[0]) == text
