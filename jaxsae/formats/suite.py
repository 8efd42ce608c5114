"""Writing several autoencoders to one new folder, in a published format."""

import pathlib
from collections.abc import Iterable

from jaxsae.errors import UserError
from jaxsae.files import whole_folder
from jaxsae.formats import gemma_scope
from jaxsae.lm import Lm, Site
from jaxsae.sae import Sae

# Name → the module that implements the format.
FORMATS = {"gemma_scope": gemma_scope}


def write_all(
  format: str,
  saes: Iterable[tuple[Site, Sae, float]],
  out,
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
  """Returns `place`, with a number if its rounded L0 is already taken."""
  number, name = 1, place
  while any(file.startswith(name + "/") for file in files):
    number += 1
    name = f"{place}_{number}"
  return name
