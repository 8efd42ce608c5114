"""Tokenizers: text ⇄ ids by SentencePiece or Hugging Face's `tokenizers`."""

import abc
import functools
import hashlib
import json
import os
import re
from collections.abc import Iterable

from etils import epath

from jaxsae.brief import brief
from jaxsae.errors import UserError
from jaxsae.files import given_path
from jaxsae.lm import tokenizer_files
from jaxsae.lm.config import GemmaConfig
from jaxsae.lm.decoder import Decoder
from jaxsae.lm.formats import special_ids


class Tokenizer(abc.ABC):
  """Converts text to token ids and back; identified by the hash of its file.

  Attributes:
    model: the content of the file.
    file_name: name of the file beside a model's weights.
    fingerprint: SHA-256 of the content.
    bos, eos, pad, unknown: ids of special tokens; eos and unknown may be None.
    vocab_size: one more than the highest id.
    num_ids: number of ids of the model; those from vocab_size on are unused.
  """

  file_name: str

  def __init__(
    self,
    model: bytes,
    name: str,
    vocab_size: int,
    bos: int | None,
    eos: int | None,
    pad: int | None,
    unknown: int | None,
  ):
    self.model = model
    self.fingerprint = hashlib.sha256(model).hexdigest()
    self.vocab_size = self.num_ids = vocab_size
    self.bos, self.eos = _needed(bos, "BOS", name), eos
    self.pad, self.unknown = _needed(pad, "PAD", name), unknown

  @staticmethod
  def load(path: str | os.PathLike[str]) -> "Tokenizer":
    """Reads `tokenizer.model` or `tokenizer.json`, which may be remote."""
    kind = JsonTokenizer if str(path).endswith(".json") else SentencePiece
    try:
      return kind(given_path(path).read_bytes(), str(path))
    except (FileNotFoundError, IsADirectoryError) as error:
      raise UserError(
        f"{path} is not a file; give a tokenizer file."
      ) from error

  def encode(self, texts: list[str]) -> list[list[int]]:
    """Returns the token ids of each text, without BOS or EOS.

    In a text `<bos>` and other special tokens are text like any other.

    Raises:
      UserError: they are not a list of texts, or one has half of a surrogate
        pair, which no file can hold.
    """
    _check_texts(texts)
    try:
      return self._encode(list(texts))
    except TypeError as error:
      if (named := _not_unicode(texts)) is not None:
        raise named from error
      raise

  @abc.abstractmethod
  def _encode(self, texts: list[str]) -> list[list[int]]:
    """Returns what `encode` does; the library raises TypeError instead."""

  @abc.abstractmethod
  def _piece(self, token: int) -> str | None:
    """Returns the piece of an id, with "▁" for a space; None if unused."""

  @abc.abstractmethod
  def _is_special(self, token: int) -> bool:
    """Returns whether an id that is in use is one that no text makes."""

  def encode_prompts(self, prompts: list[str]) -> list[list[int]]:
    """Returns the token ids of prompts: BOS once, then the text.

    Special tokens are written by name, as in `<bos>hello<eos>`.
    """
    _check_texts(prompts)
    found = map(self._with_special, prompts)
    return [x if x[:1] == [self.bos] else [self.bos, *x] for x in found]

  def id_of(self, text: str) -> int | None:
    """Returns the id of the single token with this text or name, or None."""
    ids = self._with_special(text)
    if len(ids) != 1:
      return None
    # Unknown text is one token too, the unknown token. Special tokens have a
    # piece, but decode to an empty text.
    is_known = text in (self.decode(ids), self._piece(ids[0]))
    return ids[0] if is_known else None

  def _with_special(self, text: str) -> list[int]:
    texts = self._special_pattern.split(text)  # names at odd places
    parts = self.encode(texts[::2])
    for name, part in zip(texts[1::2], parts[1:], strict=True):
      parts[0] += [self._special[name], *part]
    return parts[0]

  @functools.cached_property
  def _special(self) -> dict[str, int]:
    """Name → id of all special tokens."""
    pieces = self.used_pieces().items()
    return {piece: i for i, piece in pieces if self._is_special(i)}

  @functools.cached_property
  def _special_pattern(self) -> re.Pattern[str]:
    names = "|".join(map(re.escape, self._special))
    return re.compile(f"({names})")

  def decode(self, ids: Iterable[int]) -> str:
    """Returns the text of the ids, without BOS, EOS and PAD.

    An unused id is shown as in `pieces`, the unknown token as ⁇.

    Raises:
      UserError: they are not one row of ids.
    """
    decoder = self.decoder()
    try:
      return decoder.add(ids) + decoder.end()
    except (TypeError, ValueError) as error:
      raise UserError(
        f"{brief(ids)} is not one row of token ids; decode each row for itself."
      ) from error

  def decoder(self) -> Decoder:
    """Returns what decodes ids as they arrive, to the text of `decode`."""
    return Decoder(self._text)

  def _text(self, token: int) -> str | bytes:
    """Returns the text of one id, or the byte that it stands for."""
    piece = self._piece(token)
    if piece is None:
      return _unused(token)
    if self._is_special(token):
      return _UNKNOWN if token == self.unknown else ""
    byte = _BYTE.fullmatch(piece)
    return bytes.fromhex(byte[1]) if byte else _plain(piece)

  def used_pieces(self) -> dict[int, str]:
    """Returns the pieces of all ids that are in use, as in the file."""
    found = ((i, self._piece(i)) for i in range(self.vocab_size))
    return {i: piece for i, piece in found if piece is not None}

  @functools.cached_property
  def pieces(self) -> list[str]:
    """The text of each id of the model alone, with spaces as spaces."""
    return [
      _unused(i) if (piece := self._piece(i)) is None else _plain(piece)
      for i in range(self.num_ids)
    ]


_UNKNOWN = " \u2047 "  # as SentencePiece writes it
_BYTE = re.compile("<0x([0-9A-F]{2})>")


def _needed(token: int | None, kind: str, name: str) -> int:
  if token is None:
    raise UserError(f"{name} has no {kind} token; it is not Gemma's.")
  return token


def _plain(piece: str) -> str:
  return piece.replace("▁", " ")


def _unused(token: int) -> str:
  return f"<unused {token}>"


class SentencePiece(Tokenizer):
  """A SentencePiece model, as in the official library."""

  file_name = "tokenizer.model"

  def __init__(self, model: bytes, name: str = file_name):
    import sentencepiece  # needed for tokenising only

    try:
      # The constructor ignores an empty file, and then crashes when used.
      self._pieces = p = sentencepiece.SentencePieceProcessor()
      p.LoadFromSerializedProto(model)
    except RuntimeError as error:
      raise UserError(f"{name} is not a SentencePiece model.") from error
    ids = (p.bos_id(), p.eos_id(), p.pad_id(), p.unk_id())
    used = (None if i < 0 else i for i in ids)
    super().__init__(model, name, p.vocab_size(), *used)

  def _encode(self, texts: list[str]) -> list[list[int]]:
    return self._pieces.Encode(texts, num_threads=2)

  def _piece(self, token: int) -> str | None:
    if not 0 <= token < self.vocab_size:
      return None
    return self._pieces.IdToPiece(token)

  def _is_special(self, token: int) -> bool:
    return self._pieces.IsControl(token) or self._pieces.IsUnknown(token)


class JsonTokenizer(Tokenizer):
  """A `tokenizer.json`, read to give the same ids as Gemma's SentencePiece.

  `encode` never makes the tokens in `_SPECIAL`; all other named tokens, such as
  `<start_of_turn>`, are text, as in SentencePiece.
  """

  file_name = "tokenizer.json"

  def __init__(self, model: bytes, name: str = file_name):
    try:
      import tokenizers
    except ImportError as error:
      raise UserError(
        f'{name} needs a package: pip install "jaxsae[huggingface]".'
      ) from error
    try:
      text = json.dumps(_as_sentencepiece(json.loads(model.decode())))
      self._pieces = p = tokenizers.Tokenizer.from_str(text)
    except Exception as error:  # the package raises nothing narrower
      raise _not_hugging_face(name) from error
    p.encode_special_tokens = True  # encode them as plain text
    size = max(p.get_vocab().values(), default=-1) + 1
    names = ("<bos>", "<eos>", "<pad>", "<unk>")
    super().__init__(model, name, size, *map(p.token_to_id, names))

  def _encode(self, texts: list[str]) -> list[list[int]]:
    found = self._pieces.encode_batch_fast(texts, add_special_tokens=False)
    return [encoding.ids for encoding in found]

  def _piece(self, token: int) -> str | None:
    return self._pieces.id_to_token(token) if 0 <= token < 2**32 else None

  def _is_special(self, token: int) -> bool:
    return self._piece(token) in _SPECIAL


def _check_texts(texts: list[str]) -> None:
  """Raises UserError unless they are a list of texts; one text is none."""
  is_list = isinstance(texts, list | tuple)
  if not is_list or not all(isinstance(text, str) for text in texts):
    raise UserError(
      f"{brief(texts)} is not a list of texts; give one, as in ['a text']."
    )


def _not_unicode(texts: Iterable[str]) -> UserError | None:
  for text in filter(lambda x: isinstance(x, str), texts):
    try:
      text.encode()
    except UnicodeEncodeError as error:
      return UserError(
        f"the text has {text[error.start]!a} at character {error.start}, half"
        " of a surrogate pair, which stands for no character; take it out."
      )
  return None


_SPECIAL = ("<pad>", "<eos>", "<bos>", "<unk>")


def _not_hugging_face(name: str) -> UserError:
  return UserError(f"{name} is not a Hugging Face tokenizer.")


def _as_sentencepiece(data: dict) -> dict:
  """Returns `tokenizer.json` without pictures, truncation and padding."""
  named = [
    x for x in data["added_tokens"] if x["content"] != tokenizer_files.PICTURE
  ]
  named = [x | {"special": x["content"] in _SPECIAL} for x in named]
  return data | {"added_tokens": named, "truncation": None, "padding": None}


def find_tokenizer(
  path: str | os.PathLike[str],
  config: GemmaConfig,
  weights: epath.Path | None = None,
) -> Tokenizer | None:
  """Finds the tokenizer of a model; None if its directory has none.

  Its EOS and PAD are those of the weights' `config.json`, which people who
  tune a model may change.

  Args:
    path: a directory with `tokenizer.model` or `tokenizer.json`, or one of
      these files; it may be remote. Of two, the one that knows all tokens.
    config: the sizes of the model.
    weights: the directory of the weights; by default the tokenizer's.

  Raises:
    UserError: the file is not a tokenizer, lacks tokens that other files name,
      or belongs to another model.
  """
  path = given_path(path)
  rows = config.vocab_size
  in_folder = path.is_dir()
  file = _in_folder(path, rows) if in_folder else path
  if file is None:
    return None
  tokenizer = Tokenizer.load(file)
  _check_size(tokenizer, rows, file)
  if in_folder:
    tokenizer_files.check_named(path, file, tokenizer._piece, rows)
  _take_special(tokenizer, weights or path, rows, file)
  tokenizer.num_ids = rows
  return tokenizer


def _in_folder(path, rows: int):
  """Returns the file of a folder's tokenizer, or None."""
  model, json_file = path / SentencePiece.file_name, path / "tokenizer.json"
  if not json_file.exists():
    return model if model.exists() else None
  if not model.exists():
    return json_file
  # Parsed here, because not everybody has the package that reads it.
  found = {
    model: Tokenizer.load(model).used_pieces(),
    json_file: _pieces_of_json(json_file),
  }
  return tokenizer_files.choose(found, rows)


def _pieces_of_json(file) -> dict[int, str]:
  try:
    return tokenizer_files.pieces_of_json(json.loads(file.read_bytes()))
  except (
    ValueError,
    RecursionError,
    LookupError,
    TypeError,
    AttributeError,
  ) as error:
    raise _not_hugging_face(str(file)) from error


def _check_size(tokenizer: Tokenizer, vocab_size: int, file) -> None:
  """Raises UserError unless the tokenizer's size fits the model's.

  Tables are rounded up, by 128 of 256,128 ids in Gemma 2 and 64 of 262,208 in
  Gemma 3; the next smaller vocabulary, Gemma 2's for a Gemma 3, lacks 2 %.
  """
  size = tokenizer.vocab_size
  if size > vocab_size:
    raise UserError(
      f"{file} has {size} pieces, more than the model's"
      f" vocab_size={vocab_size}; it belongs to another model."
    )
  if vocab_size - size > max(128, vocab_size // 100):
    raise UserError(
      f"{file} has {size} pieces, far fewer than the model's"
      f" vocab_size={vocab_size}; it belongs to another model."
    )


def _take_special(tokenizer: Tokenizer, weights, rows: int, file) -> None:
  """Takes EOS and PAD from config.json; raises UserError if BOS differs."""
  given = special_ids.read(weights, rows)
  allowed = given.get("bos", [tokenizer.bos])
  if tokenizer.bos not in allowed:
    raise UserError(
      f"{file} has bos={tokenizer.bos}, but {weights / 'config.json'} says"
      f" bos_token_id={allowed}; it belongs to another model."
    )
  for name, ids in given.items():
    if getattr(tokenizer, name) not in ids:
      setattr(tokenizer, name, ids[0])
