"""Holds a config to what its types declare, and names settings in errors."""

import dataclasses
import functools
import numbers
import types
import typing
from typing import Annotated, Any

from jaxsae.errors import UserError
from jaxsae.overrides.kinds import brief, options, show, words_for
from jaxsae.overrides.settings import holds_groups, is_group


class SettingError(UserError):
  """A setting has a value that it cannot have, or that another one excludes.

  `{lr}` in its text stands for the setting and its value, `{lr:=0.1}` for the
  setting and another value, `{lr!s}` for its name. Each is written as where it
  was set: `lr=5` in Python, `--sae.optim.lr=5` on a command line.

  Args:
    config: the config whose settings the text names.
    text: the sentence.
    group: the dotted name of that config within others; empty if it is whole.
  """

  def __init__(self, config: Any, text: str, group: str = ""):
    self._config, self._text = config, text
    self._group = f"{group}." if group else ""
    super().__init__(self._written(""))

  def within(self, group: str) -> "SettingError":
    """Returns the error with the name of the group that the config is."""
    return SettingError(self._config, self._text, group)

  def typed(self) -> UserError:
    """Returns the error with its settings named as on a command line."""
    return UserError(self._written("--"))

  def _written(self, mark: str) -> str:
    fields = dataclasses.fields(self._config)
    named = {
      field.name: _Named(
        f"{mark}{self._group}{field.name}", getattr(self._config, field.name)
      )
      for field in fields
    }
    return self._text.format_map(named)


class _Named:
  """A setting, or a group of them, as it is written in a sentence."""

  def __init__(self, name: str, value: Any):
    self._name, self._value = name, value

  def __getattr__(self, key: str) -> "_Named":
    return _Named(f"{self._name}.{key}", getattr(self._value, key))

  def __getitem__(self, key: int) -> "_Named":
    return _Named(f"{self._name}.{key}", self._value[key])

  def __str__(self) -> str:
    return self._name

  def __format__(self, spec: str) -> str:
    return self._name + (spec or f"={brief(show(self._value))}")


def check(config: Any) -> None:
  """Raises SettingError unless every setting has a value that it may have.

  Configs call it when they are made, so it holds for those made in Python, from
  a command line and from a file.
  """
  for name, kind in _kinds(type(config)).items():
    problem = _problem(kind, getattr(config, name))
    if problem:
      raise SettingError(config, f"{{{name}}} {problem}.")


@functools.cache
def _kinds(cls: type) -> dict[str, Any]:
  """Returns the type of each setting; the settings of groups check theirs."""
  hints = typing.get_type_hints(cls, include_extras=True)
  names = [field.name for field in dataclasses.fields(cls)]
  is_one = lambda kind: not is_group(kind) and not holds_groups(kind)
  return {name: hints[name] for name in names if is_one(hints[name])}


def _problem(kind: Any, value: Any) -> str:
  """Returns what is wrong with a value, to be said after it; empty: nothing."""
  fitting = [option for option in options(kind) if _is_a(option, value)]
  if not fitting:
    return f"must be {words_for(kind).wanted}"
  problems = [_out_of_range(option, value) for option in fitting]
  return "" if not all(problems) else problems[0]


def _out_of_range(kind: Any, value: Any) -> str:
  if typing.get_origin(kind) is tuple:
    pairs = zip(_items(kind, value), value, strict=True)
    problems = ((part, _problem(item, part)) for item, part in pairs)
    wrong = next((pair for pair in problems if pair[1]), None)
    return f"has {brief(show(wrong[0]))}; each {wrong[1]}" if wrong else ""
  if typing.get_origin(kind) is not Annotated:
    return ""
  limit = typing.get_args(kind)[1]
  return "" if limit.allows(value) else f"must be {words_for(kind).wanted}"


def _items(kind: Any, value: tuple[Any, ...]) -> list[Any]:
  """Returns the type of each item of a tuple."""
  items = typing.get_args(kind)
  return [items[0]] * len(value) if items[-1] is ... else list(items)


_NUMBERS = {int: numbers.Integral, float: numbers.Real}


def _is_a(kind: Any, value: Any) -> bool:
  """Returns whether a value has a type, apart from any range."""
  origin = typing.get_origin(kind)
  if origin is Annotated:
    return _is_a(typing.get_args(kind)[0], value)
  if origin is typing.Literal:
    return isinstance(value, str) and value in typing.get_args(kind)
  if origin is tuple:
    return isinstance(value, tuple) and _fits_items(kind, value)
  if kind in _NUMBERS:
    return isinstance(value, _NUMBERS[kind]) and not isinstance(value, bool)
  return isinstance(value, types.NoneType if kind is None else kind)


def _fits_items(kind: Any, value: tuple[Any, ...]) -> bool:
  items = _items(kind, value)
  if len(items) != len(value):
    return False
  return all(
    any(_is_a(option, part) for option in options(item))
    for item, part in zip(items, value, strict=True)
  )
