"""Trains tokenizers like Gemma's on any text."""

import io
from collections.abc import Iterable

from jaxsae.lm.tokenizer import SentencePiece, Tokenizer


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Tokenizer:
  """Trains a byte-pair tokenizer whose decoding restores every text exactly.

  As in Gemma: digits stand alone, runs of spaces are pieces, bytes stand in
  for rare characters, and ids 0 to 3 are pad, EOS, BOS and unknown. Only "▁"
  (U+2581), SentencePiece's own sign for a space, comes back as a space.
  """
  import sentencepiece

  model = io.BytesIO()
  sentencepiece.SentencePieceTrainer.Train(
    sentence_iterator=_sentences(texts),
    model_writer=model,
    model_type="bpe",
    vocab_size=vocab_size,
    byte_fallback=True,
    split_digits=True,
    allow_whitespace_only_pieces=True,
    user_defined_symbols=["\n", "\t"],
    normalization_rule_name="identity",
    remove_extra_whitespaces=False,
    add_dummy_prefix=False,
    pad_id=0,
    eos_id=1,
    bos_id=2,
    unk_id=3,
    pad_piece="<pad>",
    eos_piece="<eos>",
    bos_piece="<bos>",
    num_threads=2,  # fixed: the result must not depend on the machine
    minloglevel=1,
  )
  return SentencePiece(model.getvalue())


def _sentences(texts: Iterable[str], size: int = 1000) -> Iterable[str]:
  """Splits texts for SentencePiece, which drops more than 4192 bytes."""
  for text in texts:
    for start in range(0, len(text), size):
      yield text[start : start + size]
