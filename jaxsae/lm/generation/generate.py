"""Text from the language model, edited or not."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from jaxsae.brief import brief
from jaxsae.errors import UserError
from jaxsae.lm.edits import Edits, TapsEdit
from jaxsae.lm.forward import by_site
from jaxsae.lm.generation.chat import END_OF_TURN
from jaxsae.lm.generation.decode import decode
from jaxsae.lm.generation.prompts import (
  Prompts,
  check_text,
  lay_out,
  read_prompts,
  tokenizer_of,
)
from jaxsae.lm.generation.sampling import is_whole, make_sampling
from jaxsae.lm.lm import Lm, check_lm


def generate(
  lm: Lm,
  prompt: str | Sequence,
  *,
  edits: Edits | None = None,
  max_tokens: int = 128,
  temperature: float = 0.0,
  top_k: int | None = None,
  top_p: float | None = None,
  seed: int = 0,
  stop: str | int | Iterable[str | int] = (),
  cache: int | None = None,
  stream: Callable[[Any], object] | None = None,
) -> str | list[int] | list[str] | list[list[int]]:
  """Continues a prompt with the language model.

  Each number of prompts, padded length, number of columns and set of edited
  sites is compiled once. Edits that are pytrees, such as `Steer`, an `Sae` or
  `jax.tree_util.Partial(steer, strength)`, may come with other values without
  compiling anything; with a plain function every call compiles anew.

  Args:
    lm: the language model.
    prompt: text, which begins with BOS whether it says `<bos>` or not, and in
      which special tokens are written by name; or token ids, which are taken
      as they are; or a list of either, of different lengths. `chat_prompt`
      writes one for a model that was tuned for conversations.
    edits: site → function of its activation [B, t, D], applied at every step:
      first to the prompts, padded on the left to t tokens, then to each new
      token, with t = 1. So a mask may choose rows, as [B, 1], but not tokens.
    max_tokens: how many tokens to write at most.
    temperature: 0 takes the likeliest token; otherwise tokens are drawn, from
      the model's own distribution at 1, from flatter ones above.
    top_k: draw only from this many of the likeliest tokens.
    top_p: draw only from the fewest of the likeliest tokens that have this
      share of the probability, counted after `top_k`.
    seed: of the draws, from 0 to 2**32 - 1.
    stop: tokens that end a continuation, as ids or as text that is one token.
      EOS and `<end_of_turn>` do so wherever the tokenizer has them, and all
      tokens that the files of the weights name as the end of a turn.
    cache: number of columns of the cache of keys and values, at most those of
      the model's context; by default just enough. Calls with the same number
      share the compiled step.
    stream: called after each step with the new part of the result, in the
      result's form; all parts joined together are the result.

  Returns:
    The continuation, without prompt and stop token: text for text, a list of
    ids for ids, and a list of these for a list of prompts.

  Raises:
    UserError: a prompt is empty, or something else, or does not fit the cache
      or the model's context with `max_tokens` more; a token is not in the
      vocabulary; text is given and there is no tokenizer; the model lacks a
      site; an edit has a mask over tokens; a setting is out of range; or logits
      are NaN or infinite, where the edit that made them so is named.
  """
  check_lm(lm)
  edits = by_site({} if edits is None else edits, lm)
  _check_stream(stream)
  _check_masks(edits)
  prompts = read_prompts(lm, prompt)
  batch = lay_out(lm, prompts, max_tokens, cache)
  sampling = make_sampling(temperature, top_k, top_p, seed)
  stops = _stops(lm, stop)

  answer = _Answer(prompts, lm.tokenizer, stream)
  steps = decode(lm, batch, edits, sampling, max_tokens)
  for i, new in enumerate(steps, start=1):
    answer.add(new, stops, is_last=i == max_tokens)
    if answer.is_complete:
      break
  return answer.result()


def _check_masks(edits: Edits) -> None:
  """Raises UserError if a mask chooses tokens, of which there is one a step."""
  for site, edit in edits.items():
    edit = edit.edit if isinstance(edit, TapsEdit) else edit
    mask = getattr(edit, "mask", None)
    shape = () if mask is None else np.shape(mask)
    if shape and shape[-1] != 1:
      raise UserError(
        f"The edit at {site} has a mask of shape {list(shape)}, but generate()"
        " edits every token of a row; choose rows with a mask of shape"
        " [rows, 1]."
      )


def _check_stream(stream: Any) -> None:
  if stream is not None and not callable(stream):
    raise UserError(
      f"stream={brief(stream)} cannot be called; give a function of the new"
      " part, such as print."
    )


def _stops(lm: Lm, stop) -> list[int]:
  """Returns the token ids that end a continuation."""
  given = (
    stop if isinstance(stop, Iterable) and not isinstance(stop, str) else [stop]
  )
  ids = [_stop_id(lm, token) for token in given]
  if lm.tokenizer is not None:
    ids += [lm.tokenizer.eos, lm.tokenizer.id_of(END_OF_TURN)]
  return [i for i in [*ids, *lm.ends] if i is not None]


def _stop_id(lm, token) -> int:
  if is_whole(token):
    lm.check_ids(np.array([token]))
    return token
  if not isinstance(token, str):
    raise UserError(
      f"stop={brief(token)} is neither a token id nor text; give one or a list."
    )
  check_text(token, "stop")
  found = tokenizer_of(lm).id_of(token)
  if found is None:
    raise UserError(
      f"stop={token!r} is not a single token; give token ids, or text that is"
      " one token."
    )
  return found


class _Answer:
  """The continuations so far, streamed to a callback as they grow."""

  def __init__(self, prompts: Prompts, tokenizer, stream: Callable | None):
    count = len(prompts.rows)
    self._is_one, self._stream = prompts.is_one, stream
    self._done = np.zeros(count, bool)
    self._decoders, self._rows = None, [[] for _ in range(count)]
    if prompts.are_text:
      self._decoders = [tokenizer.decoder() for _ in range(count)]
      self._rows = [""] * count

  @property
  def is_complete(self) -> bool:
    return bool(self._done.all())

  def add(self, new: np.ndarray, stops: list[int], is_last: bool) -> None:
    """Adds the tokens int [B] of one step."""
    before, stopped = self._done, self._done | np.isin(new, stops)
    self._done = stopped | is_last
    parts = []
    for i, token in enumerate(new):
      ids = [] if stopped[i] else [int(token)]
      parts.append(self._part(i, ids, self._done[i] and not before[i]))
      self._rows[i] += parts[i]
    if self._stream is not None:
      self._stream(self._like_prompt(parts))

  def result(self):
    return self._like_prompt(self._rows)

  def _part(self, i: int, ids: list[int], ends: bool) -> str | list[int]:
    """Returns what ids add to a row: ids, or the characters they complete."""
    if self._decoders is None:
      return ids
    decoder = self._decoders[i]
    return decoder.add(ids) + (decoder.end() if ends else "")

  def _like_prompt(self, rows: list):
    return rows[0] if self._is_one else rows
