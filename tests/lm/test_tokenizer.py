"""The tokenizer gives back what it was given."""

import hypothesis
import hypothesis.strategies as st
import pytest

from jaxsae.errors import UserError
from jaxsae.lm import Tokenizer, train_tokenizer

CODE = (
  "class A:\n\tdef f(self):\n        return  'x' * 10   # naïve → 数\r\n\n\n"
)


# SentencePiece writes a space as ▁ inside, so that one is not its own.
@hypothesis.given(st.text(max_size=40).filter(lambda text: "▁" not in text))
def test_any_text_comes_back(tokenizer, text):
  (ids,) = tokenizer.encode([text])
  assert tokenizer.decode(ids) == text


@pytest.mark.parametrize(
  "text",
  [CODE, "", " ", "   ", " a", "a ", "\n ", "\t\t", "é", "e\u0301", "\ufeffx"],
)
def test_spaces_and_accents_come_back(tokenizer, text):
  (ids,) = tokenizer.encode([text])
  assert tokenizer.decode(ids) == text


def test_special_ids_are_gemmas(tokenizer):
  ids = (tokenizer.pad, tokenizer.eos, tokenizer.bos)
  assert ids == (0, 1, 2)
  assert tokenizer.pieces[:4] == ["<pad>", "<eos>", "<bos>", "<unk>"]


def test_no_text_makes_a_special_token(tokenizer):
  for ids in tokenizer.encode(["<pad><eos><bos><unk>", "<s></s>", CODE, "☃"]):
    assert ids and min(ids) > 3


def test_every_id_is_a_piece(tokenizer):
  assert tokenizer.vocab_size == len(tokenizer.pieces) == 400
  (ids,) = tokenizer.encode([CODE])
  assert max(ids) < 400


def test_digits_stand_alone_and_indents_together(tokenizer):
  (ids,) = tokenizer.encode(["    1234"])
  assert [tokenizer.pieces[i] for i in ids] == ["    ", "1", "2", "3", "4"]


def test_several_texts_are_as_if_alone(tokenizer):
  texts = [CODE, "the latent", "", "x"]
  alone = [tokenizer.encode([text])[0] for text in texts]
  assert tokenizer.encode(texts) == alone


def test_training_twice_gives_the_same(tokenizer):
  texts = [CODE, "the latent of a site", "0123456789"] * 20
  one, two = (train_tokenizer(texts, vocab_size=300) for _ in range(2))
  assert one.model == two.model
  assert one.fingerprint == two.fingerprint != tokenizer.fingerprint


def test_a_tokenizer_loads_from_its_file(tokenizer, tmp_path):
  (tmp_path / "tokenizer.model").write_bytes(tokenizer.model)
  loaded = Tokenizer.load(tmp_path / "tokenizer.model")
  assert loaded.fingerprint == tokenizer.fingerprint
  assert loaded.encode([CODE]) == tokenizer.encode([CODE])


@pytest.mark.parametrize("content", [b"", b"hello", b"\0" * 100])
def test_what_is_not_a_tokenizer_is_named(tmp_path, content):
  (tmp_path / "tokenizer.model").write_bytes(content)
  with pytest.raises(UserError, match=r"tokenizer\.model is not a Sentence"):
    Tokenizer.load(tmp_path / "tokenizer.model")
