"""Text of tokens that arrive one after another, as while a model writes."""

import codecs
from collections.abc import Callable, Iterable


class Decoder:
  """Joins the texts of tokens; bytes wait until they are a whole character.

  However ids are cut into calls of `add`, all parts joined together are the
  same text. Bytes that are not a character become one � each, as in
  SentencePiece; bytes of one character do not reach over other tokens.
  """

  def __init__(self, text_of: Callable[[int], str | bytes]):
    self._text_of = text_of
    self._bytes = codecs.getincrementaldecoder("utf-8")(_EACH_BYTE)

  def add(self, ids: Iterable[int]) -> str:
    """Returns the text that these ids complete."""
    return "".join(self._add_one(int(token)) for token in ids)

  def end(self) -> str:
    """Returns what the bytes that still wait become."""
    return self._bytes.decode(b"", final=True)

  def _add_one(self, token: int) -> str:
    found = self._text_of(token)
    if isinstance(found, bytes):
      return self._bytes.decode(found)
    return self.end() + found


_EACH_BYTE = "jaxsae-each-byte"


def _replace_each_byte(error: UnicodeError) -> tuple[str, int]:
  if not isinstance(error, UnicodeDecodeError):
    raise error
  return "\ufffd" * (error.end - error.start), error.end


codecs.register_error(_EACH_BYTE, _replace_each_byte)
