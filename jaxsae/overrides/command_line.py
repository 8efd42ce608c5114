"""Parses overrides from a command line, and prints `--help`."""

import inspect
import itertools
import sys
import textwrap
from collections.abc import Sequence
from typing import Any, TypeVar

from jaxsae.errors import UserError, did_you_mean
from jaxsae.overrides.kinds import cast, choices, is_list, show, words_for
from jaxsae.overrides.record import from_json, to_json
from jaxsae.overrides.settings import (
  Setting,
  field_comments,
  settings,
)

Config = TypeVar("Config")


def parse(
  config: Config, argv: Sequence[str] | None = None, doc: str | None = None
) -> Config:
  """Returns `config` with the overrides in `argv` (default: `sys.argv`).

  `--help` prints `doc` and every setting, and exits. Overrides read
  `--a.b=value` or `--a.b value`; a bare `--flag` is true; a tuple is typed
  with commas or by repeating its setting; for a repeated scalar the last wins.

  Raises:
    UserError: an override is unknown, ill-typed or incomplete.
  """
  argv = sys.argv[1:] if argv is None else argv
  if "--help" in argv or "-h" in argv:
    print(help_text(config, doc))
    sys.exit(0)
  known = {setting.name: setting for setting in settings(config)}
  data = to_json(config)
  for name, text in _texts(argv, known).items():
    _put(data, name, to_json(_read(known[name], text)))
  return from_json(type(config), data)


def _texts(argv: Sequence[str], known: dict[str, Setting]) -> dict[str, str]:
  """Returns the text that `argv` gives for each setting it names."""
  texts: dict[str, str] = {}
  words = list(argv)
  while words:
    word = words.pop(0)
    if not word.startswith("--") or word == "--":
      raise UserError(
        f"Cannot place {word!r}; write --name=value, or --name=a,b for several"
      )
    name, equals, text = word.removeprefix("--").partition("=")
    if name not in known:
      raise UserError(_unknown(name, list(known)))
    if not equals:
      text = _next_word(known[name], words)
    repeated = name in texts and is_list(known[name].kind)
    texts[name] = f"{texts[name]},{text}" if repeated else text
  return texts


def _next_word(setting: Setting, words: list[str]) -> str:
  """Takes the value of a `--name` without `=` from the `words` after it."""
  if words and not words[0].startswith("--"):
    return words.pop(0)
  if setting.kind is bool:
    return "true"
  wanted = words_for(setting.kind).wanted + _example(setting)
  raise UserError(f"--{setting.name} needs a value; give {wanted}")


def _read(setting: Setting, text: str) -> Any:
  try:
    return cast(setting.kind, text, typed=True)
  except UserError as error:  # from the type's own `parse`
    raise UserError(f"--{setting.name}={text}: {error}") from None
  except ValueError:
    noun, wanted = words_for(setting.kind)[1:]
    guess = did_you_mean(text, choices(setting.kind))
    give = f"give {wanted}"
    advice = f"{guess} {give}" if guess else give + _example(setting)
    raise UserError(
      f"--{setting.name}={text} is not {noun}; {advice}"
    ) from None


def _example(setting: Setting) -> str:
  shown = show(setting.value)
  needed = shown not in ("", "None") and setting.kind is not bool
  return f", e.g. --{setting.name}={shown}" if needed else ""


def _put(data: Any, name: str, value: Any) -> None:
  *path, last = name.split(".")
  for key in path:
    data = data[int(key) if isinstance(data, list) else key]
  data[last] = value


def _unknown(name: str, names: list[str]) -> str:
  below = [other for other in names if other.startswith(f"{name}.")]
  if below:
    return f"--{name} is a group of settings; set one, e.g. --{below[0]}"
  guess = did_you_mean(name, names, prefix="--")
  advice = f"{guess} (see --help)" if guess else "--help lists them all"
  return f"Unknown setting --{name}; {advice}"


_WIDTH = 80
_INDENT = 30


def help_text(config: Any, doc: str | None = None) -> str:
  """Returns the `--help` text: each setting's name, type, meaning, default."""
  blocks = [f"usage: python {sys.argv[0]} [--setting=value ...]"]
  if doc:
    blocks.append(inspect.cleandoc(doc))
  described = settings(config, field_comments)
  for title, group in itertools.groupby(described, lambda it: it.title):
    lines = textwrap.wrap(title, _WIDTH)
    for setting in group:
      lines += _help_lines(setting)
    blocks.append("\n".join(lines))
  return "\n\n".join(blocks)


def _help_lines(setting: Setting) -> list[str]:
  head = f"  --{setting.name}={words_for(setting.kind).metavar}"
  # \xa0 keeps the default with its word while the lines are wrapped.
  default = f"(default:\xa0{show(setting.value) or 'empty'})"
  body = textwrap.wrap(f"{setting.meaning} {default}", _WIDTH - _INDENT)
  lines = [line.strip().replace("\xa0", " ") for line in body]
  if len(head) < _INDENT - 1:
    head = head.ljust(_INDENT) + lines.pop(0)
  return [head, *(" " * _INDENT + line for line in lines)]
