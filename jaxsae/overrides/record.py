"""Converts a config to JSON and, strictly, back."""

import dataclasses
import reprlib
import typing
from typing import Any, TypeVar

from jaxsae.errors import UserError, did_you_mean
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


def from_json(
  cls: type[Config], data: Any, source: str = "the configuration"
) -> Config:
  """Rebuilds the `cls` that `to_json` wrote; fills in and converts nothing.

  Raises:
    UserError: a setting is unknown, missing or ill-typed; the message names
      it and `source`, the file that `data` comes from.
  """
  return _build(cls, data, "", source)


def _build(kind: Any, data: Any, name: str, source: str) -> Any:
  if is_group(kind):
    return _build_group(kind, data, name, source)
  if holds_groups(kind):
    return _build_groups(typing.get_args(kind)[0], data, name, source)
  try:
    return cast(kind, data, typed=False)
  except UserError as error:  # from the type's own `parse`
    raise UserError(f"{source}: {name}: {error}") from None
  except ValueError:
    raise _wrong_type(data, name, words_for(kind).noun, source) from None


def _build_group(cls: type, data: Any, name: str, source: str) -> Any:
  if not isinstance(data, dict):
    raise _wrong_type(data, name, "a group of settings", source)
  kinds = typing.get_type_hints(cls)
  names = [field.name for field in dataclasses.fields(cls)]
  prefix = f"{name}." if name else ""
  for key in data:
    if key not in names:
      raise UserError(f"{source}: {_unknown(key, names, prefix)}")
  for key in names:
    if key not in data:
      raise UserError(f"{source}: the setting {prefix}{key} is missing")
  values = [
    _build(kinds[key], data[key], prefix + key, source) for key in names
  ]
  return cls(**dict(zip(names, values, strict=True)))


def _build_groups(cls: type, data: Any, name: str, source: str) -> Any:
  if not isinstance(data, list):
    raise _wrong_type(data, name, "a list of groups of settings", source)
  numbered = enumerate(data)
  return tuple(_build(cls, item, f"{name}.{i}", source) for i, item in numbered)


def _wrong_type(data: Any, name: str, noun: str, source: str) -> UserError:
  place = f"{name}=" if name else ""
  return UserError(f"{source}: {place}{reprlib.repr(data)} is not {noun}")


def _unknown(key: str, names: list[str], prefix: str) -> str:
  guess = did_you_mean(key, names, prefix)
  return f"unknown setting {prefix}{key}" + (f"; {guess}" if guess else "")
