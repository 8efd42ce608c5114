"""A byte-level tokenizer and small corpora."""

import dataclasses

import pytest

from jaxsae import data


@dataclasses.dataclass
class ByteTokenizer:
  """Bytes shifted by three; counts how many texts it was given."""

  bos: int = 1
  eos: int | None = 2
  vocab_size: int = 259
  fingerprint: str = "00ff"
  encoded: int = 0

  def encode(self, texts):
    self.encoded += len(texts)
    return [[byte + 3 for byte in text.encode()] for text in texts]

  def decode(self, tokens):
    return bytes(int(t) - 3 for t in tokens if t > 2).decode()


@pytest.fixture
def tokenizer():
  return ByteTokenizer()


@pytest.fixture
def folder(tmp_path):
  """Forty text files of different lengths."""
  root = tmp_path / "text"
  root.mkdir()
  for i in range(40):
    (root / f"{i:02}.txt").write_text(f"document {i} " * (1 + i % 7))
  return root


@pytest.fixture
def config(folder, tmp_path):
  return data.DataConfig(
    source=str(folder),
    context=32,
    held_out=0.2,
    cache=str(tmp_path / "cache"),
  )


@pytest.fixture
def corpus(config, tokenizer):
  return data.open_corpus(config, tokenizer)
