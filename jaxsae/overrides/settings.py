"""Lists the settings in a nested dataclass, with their meanings."""

import ast
import dataclasses
import inspect
import io
import textwrap
import tokenize
import typing
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple


class Setting(NamedTuple):
  """One setting of a config."""

  name: str  # dotted
  kind: Any  # its type
  value: Any
  meaning: str
  title: str  # heading of its group


def settings(
  config: Any,
  comments: Callable[[type], dict[str, str]] = lambda cls: {},
  prefix: str = "",
  title: str = "settings:",
) -> Iterator[Setting]:
  """Yields the settings of `config`: its own, then those of its groups.

  Their meanings come from `comments`: reading source takes a while, and only
  the help needs it.
  """
  kinds = typing.get_type_hints(type(config), include_extras=True)
  said = comments(type(config))
  groups = []
  for key, value in children(config):
    name, comment = prefix + key, said.get(key, "")
    if is_group(type(value)):
      groups.append((name, value, comment))
    elif holds_groups(kinds[key]):
      below = children(value)
      groups += [(f"{name}.{i}", item, comment) for i, item in below]
    else:
      yield Setting(name, kinds[key], value, comment, title)
  for name, group, comment in groups:
    heading = f"{name}: {comment}" if comment else f"{name}:"
    yield from settings(group, comments, f"{name}.", heading)


def differences(a: Any, b: Any) -> list[tuple[str, Any, Any]]:
  """Lists (dotted name, value in a, value in b) of each setting that differs.

  A setting that only one of them has counts as None in the other.
  """
  ours = {setting.name: setting.value for setting in settings(a)}
  theirs = {setting.name: setting.value for setting in settings(b)}
  return [
    (name, ours.get(name), theirs.get(name))
    for name in ours | theirs
    if name not in ours or name not in theirs or ours[name] != theirs[name]
  ]


def children(value: Any) -> list[tuple[str, Any]]:
  """Lists a dataclass's fields, or a tuple's dataclasses, by key."""
  if is_group(type(value)):
    fields = dataclasses.fields(value)
    return [(field.name, getattr(value, field.name)) for field in fields]
  if isinstance(value, tuple) and all(is_group(type(item)) for item in value):
    return [(str(index), item) for index, item in enumerate(value)]
  return []


def is_group(kind: Any) -> bool:
  """Returns whether a type is a dataclass of settings."""
  return dataclasses.is_dataclass(kind) and not hasattr(kind, "parse")


def holds_groups(kind: Any) -> bool:
  """Returns whether a type is a tuple of dataclasses."""
  items = typing.get_args(kind)
  return typing.get_origin(kind) is tuple and is_group(items[0])


def field_comments(cls: type) -> dict[str, str]:
  """Returns each field's comment, from the source of `cls` and its bases."""
  comments: dict[str, str] = {}
  for base in filter(is_group, reversed(cls.__mro__)):
    try:
      source = textwrap.dedent(inspect.getsource(base))
    except (OSError, TypeError):  # typed in a notebook: no source to read
      continue
    comments |= _comments_in(source)
  return comments


def _comments_in(source: str) -> dict[str, str]:
  """Maps each field to the comment behind it, or else to those above it."""
  lines = source.splitlines()
  said = {
    token.start[0]: token.string.lstrip("# ")
    for token in tokenize.generate_tokens(io.StringIO(source).readline)
    if token.type == tokenize.COMMENT
  }
  alone = {row for row in said if lines[row - 1].lstrip().startswith("#")}
  comments = {}
  for node in _fields_in(source):
    if isinstance(node.target, ast.Name):
      behind = range(node.lineno, (node.end_lineno or node.lineno) + 1)
      first = node.lineno
      while first - 1 in alone:
        first -= 1
      rows = [n for n in behind if n in said] or range(first, node.lineno)
      comments[node.target.id] = " ".join(said[row] for row in rows)
  return comments


def _fields_in(source: str) -> list[ast.AnnAssign]:
  """Returns the annotated names in the body of a class."""
  (cls,) = ast.parse(source).body
  assert isinstance(cls, ast.ClassDef)
  return [node for node in cls.body if isinstance(node, ast.AnnAssign)]
