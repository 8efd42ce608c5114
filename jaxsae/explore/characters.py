"""Characters in place of the byte pieces that spell them.

A tokenizer spells a character that it has no piece for in pieces of one byte of
its UTF-8 each, such as `<0xC3>` and `<0xA9>` for é.

Shapes: F latents, K contexts of a latent, W tokens of a context, N contexts
with bytes.
"""

import dataclasses
import re

import numpy as np

from jaxsae.explore.report import Contexts, Report

_BYTE = re.compile("<0x([0-9A-F]{2})>")
# Characters of 2, 3 and 4 bytes: their first bytes, and their code points.
_KINDS = (
  (2, range(0xC2, 0xE0), range(0x80, 0x800)),
  (3, range(0xE0, 0xF0), range(0x800, 0x10000)),
  (4, range(0xF0, 0xF5), range(0x10000, 0x110000)),
)
_SURROGATES = range(0xD800, 0xE000)


def with_characters(report: Report) -> Report:
  """Returns a report whose contexts show characters in place of their bytes.

  A character takes the place of its first byte and has the strongest activation
  of its bytes; the other places are empty. Characters are new ids, after those
  of the vocabulary. Bytes that spell no character stay as they are.
  """
  values = _byte_values(report.vocabulary)
  new = [_decode(sae.contexts, values) for sae in report.saes]
  codes = np.unique(np.concatenate([found for _, found in new]))
  size = len(report.vocabulary)
  saes = [
    dataclasses.replace(sae, contexts=_renumber(contexts, codes, size))
    for sae, (contexts, _) in zip(report.saes, new, strict=True)
  ]
  ascii_shown = [
    chr(value) if 0 <= value < 0x80 else text
    for value, text in zip(values.tolist(), report.vocabulary, strict=False)
  ]
  vocabulary = [*ascii_shown, *map(chr, codes.tolist())]
  return dataclasses.replace(report, saes=saes, vocabulary=vocabulary)


def _byte_values(vocabulary: list[str]) -> np.ndarray:
  """The byte that each id stands for, or -1; the last is that of id -1."""
  found = (_BYTE.fullmatch(text) for text in vocabulary)
  values = [int(match[1], 16) if match else -1 for match in found]
  return np.array([*values, -1], np.int32)


def _decode(
  contexts: Contexts, values: np.ndarray
) -> tuple[Contexts, np.ndarray]:
  """Puts characters, written as -2 - code point, in place of their bytes.

  Returns:
    the contexts, and the code points that they have now.
  """
  at = np.nonzero((values[contexts.tokens] >= 0x80).any(axis=-1))
  if not len(at[0]):
    return contexts, np.zeros(0, np.int32)
  arrays = {
    name: getattr(contexts, name).copy()
    for name in ("tokens", "activations", "peak")
  }
  parts = {name: array[at] for name, array in arrays.items()}
  for kind in _KINDS:
    _join(parts, values, *kind)
  for name, array in arrays.items():
    array[at] = parts[name]
  tokens = parts["tokens"]
  return dataclasses.replace(contexts, **arrays), -2 - tokens[tokens < -1]


def _join(parts, values, size, first_bytes, codes) -> None:
  """Joins the characters of `size` bytes in contexts [N, W], in place."""
  tokens, activations, peak = parts.values()
  if tokens.shape[-1] < size:
    return
  bytes_ = values[np.maximum(tokens, -1)]
  spans = np.lib.stride_tricks.sliding_window_view(bytes_, size, axis=-1)
  lead, rest = spans[..., 0], spans[..., 1:]
  code = lead & (0xFF >> (size + 1))
  for byte in np.moveaxis(rest, -1, 0):
    code = (code << 6) | (byte & 0x3F)
  fits = _within(lead, first_bytes) & _within(rest, range(0x80, 0xC0)).all(-1)
  fits &= _within(code, codes) & ~_within(code, _SURROGATES)
  n, w = np.nonzero(fits)
  places = w[:, None] + np.arange(size)
  strongest = activations[n[:, None], places].max(axis=-1)
  tokens[n[:, None], places], activations[n[:, None], places] = -1, 0
  tokens[n, w], activations[n, w] = -2 - code[n, w], strongest
  has_peak = (places == peak[n, None]).any(axis=-1)
  peak[n[has_peak]] = w[has_peak]


def _within(x: np.ndarray, bounds: range) -> np.ndarray:
  return (x >= bounds.start) & (x < bounds.stop)


def _renumber(contexts: Contexts, codes: np.ndarray, size: int) -> Contexts:
  """Numbers the characters from `size` on, in the order of `codes`."""
  tokens = contexts.tokens
  ids = size + np.searchsorted(codes, -2 - tokens)
  return dataclasses.replace(
    contexts, tokens=np.where(tokens < -1, ids, tokens)
  )
