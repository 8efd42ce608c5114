"""The card beside an exported file: which sites and model it belongs to.

A file such as Gemma Scope's holds arrays alone, so `card.json` in its folder
says the rest. Files without a card are read as ever.
"""

import dataclasses
import json
from typing import Any

from etils import epath

from jaxsae.errors import UserError
from jaxsae.files import given_path, is_file, whole_file
from jaxsae.formats.arrays import reason
from jaxsae.formats.format import Path
from jaxsae.formats.published import Published, figures
from jaxsae.lm import Taps
from jaxsae.origin import Origin
from jaxsae.sae import Sae

FILE = "card.json"
_LARGEST = 1_000_000  # bytes; ours have a few hundred


def write(published: Published, folder: epath.Path) -> None:
  """Writes the card of one autoencoder, if its sites are known."""
  if published.taps is None:
    return
  card = {
    "taps": str(published.taps),
    "model": published.model,
    **_sizes(published.sae),
    "metrics": {k: float(v) for k, v in published.metrics.items()},
  }
  with whole_file(folder / FILE) as partial:
    partial.write_text(json.dumps(card, indent=2) + "\n")


def complete(path: Path, published: Published) -> Published:
  """Returns a record with what its card says and its file does not.

  Raises:
    UserError: the card is damaged, or is of another autoencoder.
  """
  path = given_path(path)
  file = (path if path.is_dir() else path.parent) / FILE
  if (card := _read(file)) is None:
    return published
  _check(card, published, file)
  return dataclasses.replace(
    published,
    taps=Taps.parse(card["taps"]),
    model=card.get("model") or published.model,
    metrics={**figures(card.get("metrics")), **published.metrics},
  )


def origin(path: Path, published: Published) -> Origin:
  """Returns where an autoencoder belongs, by its card or else its path.

  Args:
    path: the file, or its folder.
    published: what was read there.

  Raises:
    UserError: the card is damaged, or is of another autoencoder.
  """
  found = complete(path, published)
  transcodes = found.taps is not None and found.taps.kind == "transcoder"
  return Origin(
    source=str(given_path(path)),
    taps=None if found.taps is None else str(found.taps),
    model=found.model,
    before_gain=transcodes and found.before_gain,
  )


def _read(file: epath.Path) -> dict[str, Any] | None:
  """Returns a card; None if there is none, or one that is not ours."""
  if not is_file(file):
    return None
  try:
    if file.stat().length > _LARGEST:
      raise ValueError("it is too large")
    card = json.loads(file.read_bytes())
    if not isinstance(card, dict) or "taps" not in card:
      return None
    Taps.parse(card["taps"])
    if not isinstance(card.get("model"), str | None):
      raise ValueError("model is not text")
  except (ValueError, TypeError, RecursionError) as error:
    raise UserError(
      f"{file} is damaged ({reason(error)}); export the autoencoder again, or"
      " remove the card to load it without."
    ) from error
  return card


def _check(card: dict[str, Any], published: Published, file) -> None:
  """Raises UserError if a card is not of the autoencoder beside it."""
  found: dict[str, Any] = _sizes(published.sae)
  if published.taps is not None:
    found["taps"] = str(published.taps)
  for name, value in found.items():
    if card.get(name, value) != value:
      raise UserError(
        f"{file} is the card of another autoencoder: {name} is"
        f" {card[name]} there, and {value} by the file beside it and its path;"
        " put each with its own, or remove the card."
      )


def _sizes(sae: Sae) -> dict[str, Any]:
  d_in, width = sae.w_enc.shape
  return {"width": width, "d_in": d_in, "d": sae.w_dec.shape[-1]}
