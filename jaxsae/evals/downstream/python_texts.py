"""Labelled texts from the sources of Python's standard library.

They need no download and no licence, and are made anew each time: one version
of Python makes the same texts on every machine. Classes are balanced, and texts
of one file stand together in training or in the test.

  python_keyword      code that ends at a keyword, or at a name; last token
  python_indentation  code that ends with a line indented by 4, 8 or 12 spaces;
                      last token
  python_docstring    a docstring, or code of a function; mean over tokens
  python_package      code of asyncio, email, multiprocessing or unittest; mean

The shipped gemma2-tiny was trained on these very files.
"""

import ast
import contextlib
import io
import keyword
import textwrap
import tokenize
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from jaxsae.data.documents import STDLIB, File, list_source
from jaxsae.evals.downstream.labelled import LabelledTexts
from jaxsae.evals.downstream.pool import Pool

_PACKAGES = ("asyncio", "email", "multiprocessing", "unittest")
_INDENTATIONS = (4, 8, 12)
# Not of every installation, or not the same.
_SKIPPED = ("test/", "config-", "_sysconfigdata")
_EACH = 4  # texts of one class from one file
_LINES = 6  # of a text of code
_CHARACTERS = (80, 240)  # of a text for the mean over tokens

Labelled = tuple[str, str]  # the label and the text
Reader = Callable[[str, str], Iterator[Labelled]]  # of a file's name and code


class _Kind(NamedTuple):
  """A set of texts: how it is read from one file, and pooled."""

  read: Reader
  classes: Sequence[str]
  pool: Pool


def python_texts(
  size: int = 1200, only: Sequence[str] = ()
) -> list[LabelledTexts]:
  """Makes the four sets of labelled texts.

  Args:
    size: texts in a set, as many of each class.
    only: names of sets, to make no others.
  """
  files = list_source(STDLIB).files
  files = [f for f in files if not f.name.startswith(_SKIPPED)]
  kinds = {k: v for k, v in _KINDS.items() if not only or k in only}
  return [_make(name, kind, files, size) for name, kind in kinds.items()]


def _make(
  name: str, kind: _Kind, files: Sequence[File], size: int
) -> LabelledTexts:
  rng = np.random.default_rng(0)
  each = size // len(kind.classes)
  found: dict[str, list[Labelled]] = {label: [] for label in kind.classes}
  for index in rng.permutation(len(files)):
    if all(len(texts) >= each for texts in found.values()):
      break
    for label, texts in _of_file(kind, files[index], rng).items():
      found[label] += texts
  every = [
    (text, label, group)
    for label, texts in found.items()
    for text, group in texts[:each]
  ]
  texts, labels, groups = zip(*every, strict=True)
  return LabelledTexts(name, texts, labels, kind.pool, groups)


def _of_file(
  kind: _Kind, file: File, rng: np.random.Generator
) -> dict[str, list[Labelled]]:
  """Returns a few texts of each class from one file, with the file's name."""
  found: dict[str, list[Labelled]] = {label: [] for label in kind.classes}
  with contextlib.suppress(OSError, SyntaxError, ValueError):
    with open(file.path, encoding="utf-8") as source:
      code = source.read()
    every = list(kind.read(file.name, code))
    for index in rng.permutation(len(every)):
      label, text = every[index]
      if len(found[label]) < _EACH * (2 if len(kind.classes) > 3 else 1):
        found[label].append((text, file.name))
  return found


def _keywords(name: str, code: str) -> Iterator[Labelled]:
  del name
  lines = code.splitlines(keepends=True)
  for token in tokenize.generate_tokens(io.StringIO(code).readline):
    row, column = token.end
    if token.type == tokenize.NAME and row > _LINES:
      is_keyword = keyword.iskeyword(token.string)
      above = lines[row - _LINES : row - 1]
      yield (
        "keyword" if is_keyword else "name",
        "".join([*above, lines[row - 1][:column]]),
      )


def _indentations(name: str, code: str) -> Iterator[Labelled]:
  del name
  lines = code.splitlines()
  for index in range(_LINES, len(lines)):
    line = lines[index]
    indentation = len(line) - len(line.lstrip(" "))
    if line.strip() and indentation in _INDENTATIONS:
      above = lines[index + 1 - _LINES : index]
      yield str(indentation), "\n".join([*above, line])


def _docstrings(name: str, code: str) -> Iterator[Labelled]:
  del name
  lines, waiting = code.splitlines(), list(ast.parse(code).body)
  for node in waiting:
    if not isinstance(node, ast.FunctionDef | ast.ClassDef):
      continue
    docstring = ast.get_docstring(node)
    yield from _of_length("docstring", docstring or "")
    if isinstance(node, ast.ClassDef):
      waiting += node.body
    elif body := node.body[1:] if docstring else node.body:
      own = lines[body[0].lineno - 1 : node.end_lineno]
      yield from _of_length("code", textwrap.dedent("\n".join(own)))


def _packages(name: str, code: str) -> Iterator[Labelled]:
  package, _, rest = name.partition("/")
  if package in _PACKAGES and rest:
    lines = code.splitlines()
    for index in range(0, len(lines), _LINES):
      yield from _of_length(package, "\n".join(lines[index : index + _LINES]))


def _of_length(label: str, text: str) -> Iterator[Labelled]:
  least, most = _CHARACTERS
  if len(text) >= least:
    yield label, text[:most]


_KINDS = {
  "python_keyword": _Kind(_keywords, ("keyword", "name"), "last"),
  "python_indentation": _Kind(
    _indentations, tuple(map(str, _INDENTATIONS)), "last"
  ),
  "python_docstring": _Kind(_docstrings, ("docstring", "code"), "mean"),
  "python_package": _Kind(_packages, _PACKAGES, "mean"),
}
