"""Output that survives any terminal, also one that has only ASCII."""

import codecs
import io
import sys

_ERRORS = "jaxsae.plain"  # the name of our way to write what cannot be written

_PLAIN = {
  "…": "...",
  "×": "x",
  "·": "-",
  "–": "-",
  "—": "-",
  "−": "-",
  "→": "->",
  "²": "^2",
  "√": "sqrt ",
  "Σ": "sum ",
  "‖": "|",
  "λ": "lambda",
  "ε": "epsilon",
  "θ": "theta",
  "ω": "omega",
  "β": "beta",
}


def survive() -> None:
  """Lets standard output and errors take any character.

  What the terminal's encoding does not have is spelled out, or shown as its
  number. Streams that were told otherwise, and those of a notebook, stay.
  """
  for stream in (sys.stdout, sys.stderr):
    if isinstance(stream, io.TextIOWrapper) and stream.errors in _PYTHONS:
      stream.reconfigure(errors=_ERRORS)


# How Python itself sets the two up, in UTF-8 and in the C locale.
_PYTHONS = ("strict", "backslashreplace", "surrogateescape")


def _spell(error: UnicodeError) -> tuple[str, int]:
  """Returns ASCII for characters that cannot be encoded."""
  assert isinstance(error, UnicodeEncodeError)
  lost = error.object[error.start : error.end]
  return "".join(_PLAIN.get(c) or _number(c) for c in lost), error.end


def _number(character: str) -> str:
  return character.encode("ascii", "backslashreplace").decode("ascii")


codecs.register_error(_ERRORS, _spell)
