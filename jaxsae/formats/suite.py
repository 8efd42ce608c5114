"""Writing several autoencoders to one new folder, in a published format."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator

import jax
from etils import epath

from jaxsae.errors import UserError
from jaxsae.files import (
  check_writable,
  files_in,
  given_path,
  is_finished,
  whole_folder,
)
from jaxsae.formats import card
from jaxsae.formats.format import Format, Path, WholeSet
from jaxsae.formats.gemma_scope import input_gain
from jaxsae.formats.published import Published
from jaxsae.formats.registry import FORMATS, written
from jaxsae.lm import Lm, Place, Taps
from jaxsae.sae import Sae


def write_all(
  format: str,
  saes: Iterable[tuple[Place, Sae, float]],
  out: Path,
  lm: Lm | None = None,
) -> list[str]:
  """Writes autoencoders to a new folder, all of them or none.

  Args:
    format: one of `FORMATS`.
    saes: site, autoencoder and measured L0 of each; site, width and L0 decide
      its folder.
    out: the new folder.
    lm: the language model they were trained on; needed only for transcoders,
      whose published form depends on it.

  Returns:
    The paths of the files, relative to the folder.

  Raises:
    UserError: the format is unknown, or the folder exists or cannot be made.
  """
  records = (
    Published(
      sae,
      Taps.of(place),
      input_gain(lm, Taps.of(place)),
      model=lm.name if lm is not None else None,
      metrics={"l0": l0},
    )
    for place, sae, l0 in saes
  )
  return write_release(format, records, out)


def write_release(
  format: str, records: Iterable[Published], out: Path
) -> list[str]:
  """Writes records to a new folder, all of them or none.

  Args:
    format: one of `FORMATS`.
    records: the autoencoders; the format decides the folder of each.
    out: the new folder.

  Returns:
    The paths of the files, relative to the folder.

  Raises:
    UserError: the format is unknown or cannot hold an autoencoder, or the
      folder exists or cannot be made.
  """
  return [file for some in writing(format, records, out) for file in some]


@dataclasses.dataclass(frozen=True)
class Anew:
  """Records that are made anew each time they are gone through.

  Attributes:
    make: makes them, one by one.
  """

  make: Callable[[], Iterator[Published]]

  def __iter__(self) -> Iterator[Published]:
    return self.make()


def writing(
  format: str, records: Iterable[Published], out: Path
) -> Iterator[list[str]]:
  """Yields the files of each record when they are written.

  A `card.json` beside them, which is not counted, says where it belongs.
  Like `write_release`; the folder appears when the iterator ends.

  If the format is a `WholeSet`, records are gone through twice, and nothing is
  yielded the first time but empty lists; give `Anew`, or all are kept.
  """
  if format not in FORMATS:
    raise UserError(
      f"--format={format} is not known; use {' or '.join(written())}."
    )
  out, layout = given_path(out), FORMATS[format]
  if is_finished(out):
    raise UserError(f"{out} exists; remove it or give --out=DIR another name.")
  check_writable(out, "give --out=DIR another place")
  if isinstance(layout, WholeSet):
    records = records if isinstance(records, Anew) else list(records)
    yield from _checking(layout, records)
    write = _write_in_set
  else:
    write = _write_alone
  files: list[str] = []
  with whole_folder(out) as partial:
    for published in records:
      new = write(layout, published, partial, files)
      files += new
      del published  # before the next one is read
      yield new


def _checking(
  layout: WholeSet, records: Iterable[Published]
) -> Iterator[list[str]]:
  """Checks a set, of which only the shapes are kept; yields after each."""
  seen: list[Published] = []
  for published in records:
    shapes = jax.eval_shape(lambda sae: sae, published.sae)
    seen.append(dataclasses.replace(published, sae=shapes))
    del published  # before the next one is read
    yield []
  layout.check_set(seen)


def _write_alone(
  layout: Format, published: Published, top: epath.Path, files: list[str]
) -> list[str]:
  """Writes a record into a folder of its own; returns its new files."""
  name = _unused(layout.place(published), files)
  layout.write(published, top / name)
  new = [f"{name}/{file}" for file in files_in(top / name)]
  card.write(published, top / name)
  return new


def _write_in_set(
  layout: Format, published: Published, top: epath.Path, files: list[str]
) -> list[str]:
  """Writes a record of a set, which has no card; returns its new files."""
  layout.write(published, top)
  return [file for file in files_in(top) if file not in files]


def _unused(place: str, files: list[str]) -> str:
  """Returns `place`, with a number if another autoencoder has taken it."""
  number, name = 1, place
  while any(file.startswith(name + "/") for file in files):
    number += 1
    name = f"{place}_{number}"
  return name
