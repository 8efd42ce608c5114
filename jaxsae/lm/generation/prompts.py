"""Prompts of different lengths, as one padded batch."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from jaxsae.brief import brief
from jaxsae.errors import UserError
from jaxsae.lm.generation.sampling import is_whole
from jaxsae.lm.lm import Lm
from jaxsae.lm.tokenizer import Tokenizer

SHORTEST = 16  # prompts are padded to this, or to a higher power of two


@dataclasses.dataclass(frozen=True)
class Prompts:
  """Token ids of each prompt, and the form in which they were given."""

  rows: Sequence[Sequence[int]]
  are_text: bool
  is_one: bool  # one prompt, not a list


@dataclasses.dataclass(frozen=True)
class Batch:
  """Prompts padded on the left to B rows of T tokens.

  Attributes:
    tokens: int32 [B, T].
    padding: int32 [B], number of columns before each prompt.
    columns: number of columns of the cache, at least T.
  """

  tokens: np.ndarray
  padding: np.ndarray
  columns: int


def read_prompts(lm: Lm, prompt: str | Sequence) -> Prompts:
  """Reads one prompt or a list, each text or token ids; text begins with BOS.

  Raises:
    UserError: there is no prompt, one is empty, or text and ids are mixed.
  """
  _check_kind(prompt)
  is_one = isinstance(prompt, str) or _is_row(prompt)
  prompts = [prompt] if is_one else list(prompt)
  texts = [one for one in prompts if isinstance(one, str)]
  ids = [one for one in prompts if not isinstance(one, str)]
  if bool(texts) == bool(ids):
    raise UserError(
      f"{len(prompts)} prompts, {len(texts)} of them text, cannot be"
      " continued; give at least one, all text or all token ids."
    )
  rows = _encode(lm, texts) if texts else ids
  for i, row in enumerate(rows):
    _check(row, i)
  return Prompts(rows, bool(texts), is_one)


def _check_kind(prompt) -> None:
  """Raises UserError unless this may be a prompt, or a list of prompts."""
  is_array = isinstance(prompt, np.ndarray | jax.Array) and np.ndim(prompt) > 0
  is_list = isinstance(prompt, Sequence) and not isinstance(prompt, bytes)
  if not is_array and not is_list:
    raise UserError(
      f"{brief(prompt)} ({type(prompt).__name__}) is not a prompt; give text, a"
      " list of token ids, or a list of either."
    )


def check_text(text: str, what: str) -> None:
  """Raises UserError if text holds half of a character (a lone surrogate)."""
  try:
    text.encode()
  except UnicodeEncodeError as error:
    raise UserError(
      f"{what} {brief(text)} holds half of a character,"
      f" {text[error.start]!a}, which is no text; leave it out, as does"
      " text.encode(errors='ignore').decode()."
    ) from error


def _is_row(prompt) -> bool:
  """Returns whether this is one prompt's token ids."""
  if len(prompt) == 0 or isinstance(prompt[0], list | tuple | str):
    return False
  return np.ndim(prompt[0]) == 0


def _encode(lm: Lm, texts: Sequence[str]) -> list[list[int]]:
  for i, text in enumerate(texts):
    check_text(text, f"Prompt {i}")
  return tokenizer_of(lm).encode_prompts(list(texts))


def tokenizer_of(lm: Lm) -> Tokenizer:
  """Returns the model's tokenizer; raises UserError if it has none."""
  if lm.tokenizer is None:
    raise UserError(
      f"{lm.name or 'The language model'} has no tokenizer to read text with;"
      " give token ids, or load it with tokenizer=."
    )
  return lm.tokenizer


def _check(row, i):
  if len(row) == 0:
    raise UserError(f"Prompt {i} is empty; give it at least one token.")
  try:
    ids = np.asarray(row)
  except ValueError:
    ids = np.array(None)
  if ids.ndim != 1 or not np.issubdtype(ids.dtype, np.integer):
    raise UserError(f"Prompt {i} is neither text nor a list of token ids.")


def lay_out(
  lm: Lm, prompts: Prompts, max_tokens: int, cache: int | None
) -> Batch:
  """Pads the prompts to one of a few lengths, with room for `max_tokens`.

  Args:
    lm: the language model.
    prompts: of any length.
    max_tokens: number of tokens that will follow.
    cache: number of columns of the cache; None: just enough.

  Raises:
    UserError: prompts do not fit the cache or the model's context, or hold a
      token that is not in the vocabulary.
  """
  _check_count("max_tokens", max_tokens)
  if cache is not None:
    _check_count("cache", cache)
  lengths = np.array([len(row) for row in prompts.rows])
  room = _room(lm, lengths, max_tokens, cache)
  power = 1 << int(lengths.max() - 1).bit_length()
  time = min(max(SHORTEST, power), room - max_tokens)
  padding = time - lengths
  tokens = np.zeros((len(lengths), time), np.int64)
  for row, start, ids in zip(tokens, padding, prompts.rows, strict=True):
    row[start:] = ids
  lm.check_ids(tokens)
  columns = time + max_tokens if cache is None else min(cache, room)
  return Batch(tokens.astype(np.int32), padding.astype(np.int32), columns)


def _check_count(name: str, value: Any) -> None:
  if not is_whole(value) or value < 1:
    raise UserError(f"{name}={brief(value)} is not a number of 1 or more.")


def _room(lm, lengths, max_tokens, cache) -> int:
  """Returns the most tokens that a row may have; raises if they do not fit."""
  room, what = lm.config.context, "context"
  if cache is not None and cache < room:
    room, what = cache, "cache"
  longest = int(lengths.max())
  if longest + max_tokens > room:
    fewer = f", or max_tokens={room - longest}" if longest < room else ""
    raise UserError(
      f"Prompt {lengths.argmax()} of {longest} tokens and max_tokens="
      f"{max_tokens} do not fit the {what} of {room}; use a shorter"
      f" prompt{fewer}."
    )
  return room
