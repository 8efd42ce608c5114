"""Parses overrides from a command line, and prints `--help`."""

import inspect
import itertools
import sys
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar, TypeVarTuple

from jaxsae.errors import UserError, did_you_mean
from jaxsae.overrides.checks import SettingError
from jaxsae.overrides.kinds import brief, cast, choices, show, words_for
from jaxsae.overrides.ranges import limit_of
from jaxsae.overrides.record import build, to_json
from jaxsae.overrides.settings import (
  Setting,
  field_comments,
  settings,
)

Config = TypeVar("Config")
Configs = TypeVarTuple("Configs")


def parse(
  config: Config, argv: Sequence[str] | None = None, doc: str | None = None
) -> Config:
  """Returns `config` with the overrides of a command line.

  Like `parse_several`, for one config.
  """
  return parse_several(config, argv=argv, doc=doc)[0]


def parse_several(
  *configs: *Configs,
  argv: Sequence[str] | None = None,
  doc: str | None = None,
  headings: Sequence[str] = (),
  usage: str | None = None,
  words: Sequence[str] = (),
) -> tuple[*Configs]:
  """Returns each of several configs with the overrides of one command line.

  Overrides read `--a.b=value` or `--a.b value`; a bare `--flag` is true. A
  tuple is typed with commas. If a setting is repeated, its last value holds,
  that of a tuple too. `--help` prints `doc` and every setting, and exits.

  Args:
    *configs: dataclasses with the defaults. If several of them have a setting
      of the same name, that of the first is overridden.
    argv: the command line's arguments; by default those of this program.
    doc: the first paragraphs of `--help`.
    headings: what `--help` prints above the settings of each config.
    usage: the command that `--help` shows; by default this program.
    words: settings whose values may be given without `--name=`, in this order.

  Raises:
    UserError: an override is unknown, ill-typed, incomplete or out of its
      range.
  """
  argv = sys.argv[1:] if argv is None else argv
  if "--help" in argv or "-h" in argv:
    shown = help_text(
      *configs, doc=doc, headings=headings, usage=usage, words=words
    )
    print(shown)
    sys.exit(0)
  records = [to_json(config) for config in configs]
  known: dict[str, Setting] = {}
  record_of = {}
  for config, record in zip(configs, records, strict=True):
    for setting in settings(config):
      if setting.name not in known:
        known[setting.name], record_of[setting.name] = setting, record
  for name, text in _texts(argv, known, words).items():
    _put(record_of[name], name, to_json(_read(known[name], text)))
  pairs = zip(configs, records, strict=True)
  try:
    made: Any = tuple(build(type(it), record) for it, record in pairs)
  except SettingError as error:
    raise error.typed() from None
  return made


def words_and_flags(argv: Sequence[str]) -> tuple[list[str], list[str]]:
  """Splits a command line into words and `--a=b`, for `parse_several`.

  A flag without `=` takes the word after it, as it does there.
  """
  words: list[str] = []
  flags: list[str] = []
  for word in argv:
    open_flag = flags and flags[-1].startswith("--") and "=" not in flags[-1]
    if word.startswith("-") or open_flag:
      flags.append(word)
    else:
      words.append(word)
  return words, flags


def _texts(
  argv: Sequence[str], known: dict[str, Setting], words: Sequence[str]
) -> dict[str, str]:
  """Maps each setting that `argv` names to the text given for it."""
  texts: dict[str, str] = {}
  left, unnamed = list(argv), list(words)
  while left:
    word = left.pop(0)
    if unnamed and not word.startswith("-"):
      texts[unnamed.pop(0)] = word
      continue
    if not word.startswith("--") or word == "--":
      raise UserError(
        f"Cannot place {word!r}; write --name=value, or --name=a,b for several"
      )
    name, equals, text = word.removeprefix("--").partition("=")
    if name not in known:
      raise UserError(_unknown(name, list(known)))
    if not equals:
      text = _next_word(known[name], left)
    texts[name] = text
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
    said = str(error).replace(text, brief(text)) if text else str(error)
    raise UserError(f"--{setting.name}={brief(text)}: {said}") from None
  except ValueError:
    noun, wanted = words_for(setting.kind)[1:]
    guess = did_you_mean(text, choices(setting.kind))
    give = f"give {wanted}"
    advice = f"{guess} {give}" if guess else give + _example(setting)
    raise UserError(
      f"--{setting.name}={brief(text)} is not {noun}; {advice}"
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


def help_text(
  *configs: Any,
  doc: str | None = None,
  headings: Sequence[str] = (),
  usage: str | None = None,
  words: Sequence[str] = (),
) -> str:
  """Returns what `--help` prints: names, types, meanings and defaults.

  The arguments are those of `parse_several`.
  """
  command = " ".join([usage or f"python {sys.argv[0]}", *map(str.upper, words)])
  blocks = [
    f"usage: {command} [--setting=value ...]\n"
    "Several values have commas between; of a setting given twice, the last"
    " holds."
  ]
  if doc:
    blocks.append(inspect.cleandoc(doc))
  described = _described(configs, headings or ["settings:"] * len(configs))
  for title, group in itertools.groupby(described, lambda it: it.title):
    lines = textwrap.wrap(title, _WIDTH)
    for setting in group:
      lines += _help_lines(setting, setting.name in words)
    blocks.append("\n".join(lines))
  return "\n\n".join(blocks)


def _described(
  configs: Sequence[Any], headings: Sequence[str]
) -> Iterator[Setting]:
  """Yields the settings of all configs, each name once."""
  seen = set()
  for config, heading in zip(configs, headings, strict=True):
    for setting in settings(config, field_comments, title=heading):
      if setting.name not in seen:
        seen.add(setting.name)
        yield setting


def _help_lines(setting: Setting, is_word: bool) -> list[str]:
  head = f"  --{setting.name}={words_for(setting.kind).metavar}"
  if is_word:
    return [f"  {setting.name.upper()}".ljust(_INDENT) + setting.meaning]
  # \xa0 keeps the default with its word while the lines are wrapped.
  default = f"default:\xa0{show(setting.value) or 'empty'}"
  limit = limit_of(setting.kind)
  facts = f"({limit}; {default})" if limit else f"({default})"
  body = textwrap.wrap(f"{setting.meaning} {facts}", _WIDTH - _INDENT)
  lines = [line.strip().replace("\xa0", " ") for line in body]
  if len(head) < _INDENT - 1:
    head = head.ljust(_INDENT) + lines.pop(0)
  return [head, *(" " * _INDENT + line for line in lines)]
