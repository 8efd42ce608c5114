"""Text ⇄ token ids, by SentencePiece."""

import functools
import hashlib
import io
import pathlib
from collections.abc import Iterable

from jaxsae.errors import UserError


class Tokenizer:
  """A SentencePiece model, known by the hash of its file."""

  def __init__(self, model: bytes, name: str = "tokenizer.model"):
    import sentencepiece  # only those who tokenise need it

    self.model = model
    self.fingerprint = hashlib.sha256(model).hexdigest()
    try:
      # The constructor takes an empty file for none, and crashes when used.
      self._pieces = sentencepiece.SentencePieceProcessor()
      self._pieces.LoadFromSerializedProto(model)
    except RuntimeError as error:
      raise UserError(f"{name} is not a SentencePiece model.") from error

  @classmethod
  def load(cls, path) -> "Tokenizer":
    """Reads `tokenizer.model`."""
    return cls(pathlib.Path(path).read_bytes(), str(path))

  @property
  def bos(self) -> int:
    return self._pieces.bos_id()

  @property
  def eos(self) -> int | None:
    found = self._pieces.eos_id()
    return None if found < 0 else found

  @property
  def pad(self) -> int:
    return self._pieces.pad_id()

  @property
  def vocab_size(self) -> int:
    return self._pieces.vocab_size()

  def encode(self, texts: list[str]) -> list[list[int]]:
    """Token ids of each text, without BOS or EOS."""
    return self._pieces.encode(texts, num_threads=2)

  def decode(self, ids: list[int]) -> str:
    """The text of the ids."""
    return self._pieces.decode([int(i) for i in ids])

  @functools.cached_property
  def pieces(self) -> list[str]:
    """What each id looks like on its own, with spaces as spaces."""
    piece = self._pieces.id_to_piece
    return [piece(i).replace("▁", " ") for i in range(self.vocab_size)]


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Tokenizer:
  """A byte-pair tokenizer that gives back every text exactly.

  As in Gemma: digits stand alone, runs of spaces are pieces, bytes stand in
  for rare characters, and ids 0 to 3 are pad, EOS, BOS and unknown. Only "▁"
  (U+2581), SentencePiece's own sign for a space, comes back as a space.
  """
  import sentencepiece

  model = io.BytesIO()
  sentencepiece.SentencePieceTrainer.train(
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
  return Tokenizer(model.getvalue())


def _sentences(texts: Iterable[str], size: int = 1000) -> Iterable[str]:
  """Pieces short enough for SentencePiece, which drops over 4192 bytes."""
  for text in texts:
    for start in range(0, len(text), size):
      yield text[start : start + size]
