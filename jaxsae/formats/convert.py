"""Converting published autoencoders from one format to another."""

import dataclasses
from collections.abc import Iterable, Iterator

from jaxsae.errors import UserError
from jaxsae.formats import card, hub
from jaxsae.formats.format import Path
from jaxsae.formats.gemma_scope import input_gain
from jaxsae.formats.llama_scope import LlamaScope
from jaxsae.formats.load import autoencoders_at, format_of
from jaxsae.formats.published import Published
from jaxsae.formats.suite import Anew, writing
from jaxsae.lm import Lm, Place, Taps


def convert(
  paths: Iterable[Path],
  format: str,
  out: Path,
  place: Place | None = None,
  l0: float | None = None,
  lm: Lm | None = None,
  reading: str | None = None,
) -> Iterator[list[str]]:
  """Writes autoencoders of any format in another, one by one.

  Args:
    paths: autoencoders, or folders with any number of them below, here or on
      the Hugging Face Hub.
    format: the name of the new format, one of `FORMATS`.
    out: the new folder, which appears when the iterator ends.
    place: the site or taps of all, for files that do not say it.
    l0: the L0 of all, for files that do not say it.
    lm: the language model, for transcoders whose gain another format leaves
      out.
    reading: how to read Llama Scope's files, one of `llama_scope.READINGS`;
      None: as `LlamaScope.read` does.

  Yields:
    The paths of each autoencoder's files, relative to the folder.

  Raises:
    UserError: a path holds no autoencoder, or one that is damaged or that the
      format cannot hold; or the folder exists.
  """
  found = [one for path in paths for one in autoencoders_at(hub.local(path))]
  if not found:
    raise UserError("Nothing to convert; give a file or folder.")
  records = lambda: (_record(one, place, l0, lm, reading) for one in found)
  return writing(format, Anew(records), out)


def _record(
  path: Path,
  place: Place | None,
  l0: float | None,
  lm: Lm | None,
  reading: str | None,
) -> Published:
  """Reads an autoencoder and adds what its file does not say.

  Raises:
    UserError: the file says another site, or has no such reading.
  """
  read = card.complete(path, _read(path, reading))
  if place is not None:
    taps = Taps.of(place)
    if read.taps not in (None, taps):
      raise UserError(f"{path} says that it is of {read.taps}, not of {taps}.")
    read = dataclasses.replace(read, taps=taps)
  if l0 is not None and "l0" not in read.metrics:
    read = dataclasses.replace(read, metrics={**read.metrics, "l0": l0})
  if read.taps is not None and not read.before_gain:
    gain = input_gain(lm, read.taps)
    read = dataclasses.replace(read, input_gain=gain)
  return read


def _read(path: Path, reading: str | None) -> Published:
  format = format_of(path)
  if reading is None:
    return format.read(path)
  if not isinstance(format, LlamaScope):
    raise UserError(
      f"reading={reading} is for Llama Scope's files, and {path} is"
      f" {format.name}; convert it without."
    )
  return format.read(path, reading)
