"""The types of settings: how to read, name and show their values."""

import contextlib
import math
import types
import typing
from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple

from jaxsae.overrides.ranges import bare, limit_of


class Words(NamedTuple):
  """The words for a type, in the help and in errors."""

  metavar: str  # in the help
  noun: str  # "x is not …"
  wanted: str  # "give …"


_SCALARS = {
  int: Words("INT", "an int", "a whole number"),
  float: Words("FLOAT", "a float", "a number"),
  bool: Words("true|false", "a bool", "true or false"),
  str: Words("TEXT", "a str", "text"),
  types.NoneType: Words("None", "None", "None"),
}


def cast(kind: Any, data: Any, typed: bool) -> Any:
  """Converts `data`, from JSON or `typed` by a person, to a `kind`.

  Only typed text is interpreted: "8" is an int if typed, not in JSON. Ranges
  are left to `checks.check`.

  Raises:
    ValueError: `data` is not a `kind`.
    TypeError: settings cannot have this type, a mistake in a config class.
  """
  kind = bare(kind)
  if len(options(kind)) > 1:
    return _cast_first(options(kind), data, typed)
  if typing.get_origin(kind) is tuple:
    return _cast_tuple(typing.get_args(kind), data, typed)
  if typing.get_origin(kind) is typing.Literal:
    return _check(data, data in typing.get_args(kind))
  if hasattr(kind, "parse"):
    return kind.parse(cast(str, data, typed))
  if kind not in _SCALARS:
    raise TypeError(f"a setting cannot be a {kind}")
  if typed and kind is not str:
    data = _spelled(data)
  if kind is float and type(data) is int and abs(data) < 2**1000:
    data = float(data)
  is_finite = type(data) is not float or math.isfinite(data)
  return _check(data, type(data) is kind and is_finite)


def _check(data: Any, fits: bool) -> Any:
  if not fits:
    raise ValueError(data)
  return data


def _cast_first(kinds: Sequence[Any], data: Any, typed: bool) -> Any:
  """Casts to the first type that fits; None first, as "None" is also text."""
  *firsts, last = sorted(kinds, key=lambda kind: kind is not types.NoneType)
  for kind in firsts:
    with contextlib.suppress(ValueError):
      return cast(kind, data, typed)
  return cast(last, data, typed)


def _cast_tuple(items: tuple[Any, ...], data: Any, typed: bool) -> Any:
  if typed:
    data = data.split(",") if data else []
  _check(data, isinstance(data, list))
  kinds = [items[0]] * len(data) if items[-1] is ... else items
  pairs = zip(kinds, data, strict=True)
  return tuple(cast(kind, part, typed) for kind, part in pairs)


_SPELLED = {"true": True, "false": False, "none": None}


def _spelled(text: str) -> Any:
  """Reads None, a boolean or a number from `text`; 1e6 is a whole number."""
  if text.lower() in _SPELLED:
    return _SPELLED[text.lower()]
  with contextlib.suppress(ValueError):
    return int(text)
  number = float(text)
  is_whole = abs(number) <= 2**53 and number.is_integer()
  return int(number) if is_whole else number


def choices(kind: Any) -> tuple[str, ...]:
  """Returns the values of a `Literal`; empty for other types."""
  literals = [
    option
    for option in options(kind)
    if typing.get_origin(option) is typing.Literal
  ]
  return tuple(name for it in literals for name in typing.get_args(it))


def options(kind: Any) -> tuple[Any, ...]:
  """Returns the types of a union, or `kind` alone."""
  is_union = typing.get_origin(kind) in (typing.Union, types.UnionType)
  return typing.get_args(kind) if is_union else (kind,)


def words_for(kind: Any) -> Words:
  """Returns the words for `kind` in the help and in errors."""
  items = typing.get_args(kind)
  if kind in _SCALARS:
    return _SCALARS[kind]
  if typing.get_origin(kind) is Annotated:
    words = words_for(items[0])
    return words._replace(wanted=f"{words.wanted} {items[1]}")
  if typing.get_origin(kind) is typing.Literal:
    *firsts, last = items
    wanted = f"{', '.join(firsts)} or {last}" if firsts else last
    return Words("|".join(items), "a choice", wanted)
  if typing.get_origin(kind) is tuple:
    return _words_for_tuple(items)
  if items:
    metavars, nouns, wanted = zip(*map(words_for, items), strict=True)
    return Words("|".join(metavars), " or ".join(nouns), " or ".join(wanted))
  name = f"a {kind.__name__}"
  return Words(kind.__name__.upper(), name, name)


def _words_for_tuple(items: tuple[Any, ...]) -> Words:
  item, limit = words_for(bare(items[0])), limit_of(items[0])
  plural = lambda word: word.removesuffix("s") + "s"
  noun = f"a tuple of {plural(item.noun.split()[-1])}"
  each = plural(item.wanted.removeprefix("a "))
  each = f"{each} {limit}" if limit else each
  wanted = (
    f"{each}, with commas between" if limit else f"{each} with commas between"
  )
  if items[-1] is ...:
    return Words(f"{item.metavar},...", noun, wanted)
  metavars = [words_for(kind).metavar for kind in items]
  return Words(",".join(metavars), noun, f"{len(items)} {wanted}")


def show(value: Any) -> str:
  """Formats `value` as a person types it."""
  if isinstance(value, tuple):
    return ",".join(map(show, value))
  if isinstance(value, bool):
    return str(value).lower()
  if isinstance(value, float):
    return repr(value).removesuffix(".0")
  return str(value)


def brief(text: str, most: int = 60) -> str:
  """Returns text as it is shown in an error: in one line, and not too long."""
  text = text if text.isprintable() else repr(text)
  return text if len(text) <= most else f"{text[:most]}…"
