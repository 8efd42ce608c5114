"""Converts a config to JSON and, strictly, back."""

import dataclasses
import reprlib
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from jaxsae.errors import UserError, did_you_mean
from jaxsae.overrides.checks import SettingError
from jaxsae.overrides.kinds import cast, words_for
from jaxsae.overrides.settings import (
  children,
  holds_groups,
  is_group,
)

Config = TypeVar("Config")


def to_json(config: Any) -> Any:
  """Converts `config` to dicts, lists, strings, numbers, booleans and None."""
  if is_group(type(config)):
    return {name: to_json(value) for name, value in children(config)}
  if isinstance(config, tuple):
    return [to_json(item) for item in config]
  return str(config) if hasattr(config, "parse") else config


Added = Mapping[type, Mapping[str, Any]]


def from_json(
  cls: type[Config],
  data: Any,
  source: str = "the configuration",
  added: Added = types.MappingProxyType({}),
) -> Config:
  """Rebuilds the `cls` that `to_json` wrote; converts nothing.

  Args:
    cls: the class of the config.
    data: the JSON.
    source: the file that it comes from, for errors.
    added: dataclass → the settings that it did not always have, each with the
      value, as JSON, by which older files meant what they say. Nothing else is
      filled in.

  Raises:
    UserError: a setting is unknown, missing, ill-typed or out of its range;
      the message names it and `source`, the file that `data` comes from.
  """
  try:
    return build(cls, data, source, added)
  except SettingError as error:
    raise UserError(f"{source}: {error}") from None


def build(
  cls: type[Config],
  data: Any,
  source: str = "the configuration",
  added: Added = types.MappingProxyType({}),
) -> Config:
  """Rebuilds a config as `from_json` does, but leaves its errors as they are.

  Raises:
    SettingError: a setting has a value that it cannot have.
    UserError: a setting is unknown, missing or ill-typed.
  """
  return _Builder(source, added).build(cls, data, "")


@dataclasses.dataclass(frozen=True)
class _Builder:
  """Rebuilds configs from one file."""

  source: str
  added: Added

  def build(self, kind: Any, data: Any, name: str) -> Any:
    """Rebuilds a setting, or a group of them, called `name`."""
    if is_group(kind):
      return self._group(kind, data, name)
    if holds_groups(kind):
      return self._groups(typing.get_args(kind)[0], data, name)
    try:
      return cast(kind, data, typed=False)
    except UserError as error:  # from the type's own `parse`
      raise UserError(f"{self.source}: {name}: {error}") from None
    except ValueError:
      noun = words_for(kind).noun
      raise _wrong_type(data, name, noun, self.source) from None

  def _group(self, cls: type, data: Any, name: str) -> Any:
    if not isinstance(data, dict):
      raise _wrong_type(data, name, "a group of settings", self.source)
    kinds = typing.get_type_hints(cls, include_extras=True)
    names = [field.name for field in dataclasses.fields(cls)]
    data = {**self.added.get(cls, {}), **data}
    prefix = f"{name}." if name else ""
    for key in data:
      if key not in names:
        raise UserError(f"{self.source}: {_unknown(key, names, prefix)}")
    for key in names:
      if key not in data:
        raise UserError(f"{self.source}: the setting {prefix}{key} is missing")
    values = [self.build(kinds[key], data[key], prefix + key) for key in names]
    try:
      return cls(**dict(zip(names, values, strict=True)))
    except SettingError as error:
      raise error.within(name) from None

  def _groups(self, cls: type, data: Any, name: str) -> Any:
    if not isinstance(data, list):
      raise _wrong_type(data, name, "a list of groups of settings", self.source)
    numbered = enumerate(data)
    return tuple(self.build(cls, item, f"{name}.{i}") for i, item in numbered)


def _wrong_type(data: Any, name: str, noun: str, source: str) -> UserError:
  place = f"{name}=" if name else ""
  return UserError(f"{source}: {place}{reprlib.repr(data)} is not {noun}")


def _unknown(key: str, names: list[str], prefix: str) -> str:
  guess = did_you_mean(key, names, prefix)
  return f"unknown setting {prefix}{key}" + (f"; {guess}" if guess else "")
