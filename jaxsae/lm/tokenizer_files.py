"""Which file beside a model's weights knows all of its tokens.

A tuned model may have tokens that only some of its files name: those that were
added, and those that took the place of `<unused7>`.
"""

import re
from collections.abc import Callable, Iterator, Mapping

from etils import epath

from jaxsae.errors import UserError
from jaxsae.lm.formats.json_file import read_object

# Stands for a picture. It is in the files of all sizes of Gemma 3, but the
# embedding tables of those that read only text lack it.
PICTURE = "<image_soft_token>"

Pieces = Mapping[int, str]  # id → piece

_UNUSED = re.compile(r"<unused\d+>")
_ASCII = re.compile("<0x([0-7][0-9A-F])>")


def pieces_of_json(data: dict) -> dict[int, str]:
  """Returns the pieces in the content of a `tokenizer.json`."""
  vocab = data["model"]["vocab"]
  if isinstance(vocab, list):  # of pieces with their scores
    vocab = {piece: i for i, (piece, _) in enumerate(vocab)}
  added = {token["id"]: token["content"] for token in data["added_tokens"]}
  pieces = {i: piece for piece, i in vocab.items()} | added
  return {i: piece for i, piece in pieces.items() if piece != PICTURE}


def choose(files: Mapping[epath.Path, Pieces], rows: int) -> epath.Path:
  """Returns the first of two files that knows all that the other knows.

  Args:
    files: each file's pieces.
    rows: number of ids of the model; pieces beyond are not compared.

  Raises:
    UserError: each knows a token that the other does not.
  """
  (one, its), (other, others) = files.items()
  lacking = _lacking(its, others, rows)
  if lacking is None:
    return one
  if _lacking(others, its, rows) is None:
    return other
  raise UserError(
    f"{one} says that token {lacking} is {its.get(lacking)!r}, and {other.name}"
    f" that it is {others[lacking]!r}; remove the file that is not the model's."
  )


def check_named(
  folder: epath.Path,
  file: epath.Path,
  piece_of: Callable[[int], str | None],
  rows: int,
) -> None:
  """Raises UserError if other files name a token that the tokenizer lacks.

  Args:
    folder: the directory of the tokenizer.
    file: the tokenizer's file.
    piece_of: returns its piece of an id, None if it has none.
    rows: number of ids of the model; what is named beyond does not matter.
  """
  for source, named in _named(folder):
    ours = {i: piece for i in named if (piece := piece_of(i)) is not None}
    lacking = _lacking(ours, named, rows)
    if lacking is not None:
      raise UserError(
        f"{source} names token {lacking}, {named[lacking]!r}, which {file.name}"
        " lacks; put the tokenizer.json that has it beside it, as"
        " transformers' AutoTokenizer saves it."
      )


def _named(folder) -> Iterator[tuple[epath.Path, Pieces]]:
  """Yields what Hugging Face's other files say about added tokens."""
  file = folder / "added_tokens.json"
  ids = read_object(file).items()
  yield file, {i: text for text, i in ids if type(i) is int}
  file = folder / "tokenizer_config.json"
  added = read_object(file).get("added_tokens_decoder")
  tokens = added.items() if isinstance(added, dict) else ()
  yield file, {int(i): _content(token) for i, token in tokens if i.isdecimal()}


def _content(token) -> str:
  """Returns the text of a token that is given with or without its flags."""
  return str(token.get("content") if isinstance(token, dict) else token)


def _lacking(known: Pieces, others: Pieces, rows: int) -> int | None:
  """Returns the least id that `others` name and `known` do not, or None."""
  lacking = (
    i
    for i, piece in others.items()
    if 0 <= i < rows and not _is_known(known.get(i), piece)
  )
  return min(lacking, default=None)


def _is_known(ours: str | None, piece: str) -> bool:
  """Returns whether we know a piece, perhaps written in another way."""
  if _UNUSED.fullmatch(piece) or piece == PICTURE:
    return True
  return ours is not None and _plain(ours) == _plain(piece)


def _plain(piece: str) -> str:
  """Returns one way to write a piece.

  Hugging Face's file of Gemma 2 has a tab where SentencePiece's has `<0x09>`.
  """
  byte = _ASCII.fullmatch(piece)
  return chr(int(byte[1], 16)) if byte else piece.replace("▁", " ")
