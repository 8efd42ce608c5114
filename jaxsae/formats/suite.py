"""A whole sweep in one new folder, in a format that others read."""

import pathlib
from collections.abc import Iterable

from jaxsae.errors import UserError
from jaxsae.files import whole_folder
from jaxsae.formats import gemma_scope
from jaxsae.lm import Lm, Site
from jaxsae.sae import Sae

# Name → the module that knows its layout and its files.
FORMATS = {"gemma_scope": gemma_scope}


def write_all(
  format: str,
  saes: Iterable[tuple[Site, Sae, float]],
  out,
  lm: Lm | None = None,
) -> list[str]:
  """Writes autoencoders to a new folder; all of them or nothing.

  Args:
    format: one of `FORMATS`.
    saes: each with its site and its measured L0, which name its place.
    out: the folder.
    lm: what they were trained on; needed for transcoders alone, whose published
      form depends on it.

  Returns:
    The files' paths within the folder.

  Raises:
    UserError: the format is unknown, or the folder exists or can not be made.
  """
  if format not in FORMATS:
    raise UserError(
      f"--format={format} is not known; use {' or '.join(FORMATS)}."
    )
  out, layout = pathlib.Path(out), FORMATS[format]
  if out.exists():
    raise UserError(f"{out} exists; remove it or give --out=DIR another name.")
  files = []
  with whole_folder(out) as partial:
    for site, sae, l0 in saes:
      place = _unused(layout.folder(site, sae.width, l0), files)
      published = layout.to_published(sae, site, lm)
      layout.write(published, partial / place / layout.FILE)
      files.append(f"{place}/{layout.FILE}")
  return files


def _unused(place: str, files: list[str]) -> str:
  """Two autoencoders of one sweep can round to the same L0."""
  number, name = 1, place
  while any(file.startswith(name + "/") for file in files):
    number += 1
    name = f"{place}_{number}"
  return name
