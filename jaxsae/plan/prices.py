"""Prices of chips: a table that users can edit, with a source for each price.

`prices.json` beside this file is a list of prices; `--prices=FILE` takes
another list of the same form. If a chip has several prices, the first counts.
"""

import dataclasses
import datetime
import json
import math
import pathlib
from collections.abc import Mapping
from typing import Any

from jaxsae.errors import UserError

SHIPPED = pathlib.Path(__file__).parent / "prices.json"


@dataclasses.dataclass(frozen=True)
class ChipPrice:
  """The price of one chip for an hour.

  Attributes:
    chip: its name in a topology, as in v5e.
    region: region of the cloud.
    currency: currency of the price, as in USD.
    on_demand: price of a chip that is kept as long as wanted.
    spot: price of a chip that may be taken away; None if it is not known.
    source: where the price was read.
    date: when the price was read, as in 2026-11-21.
  """

  chip: str
  region: str
  currency: str
  on_demand: float
  spot: float | None
  source: str
  date: str


PriceTable = Mapping[str, ChipPrice]  # by the name of the chip


def read(path: str | None = None) -> PriceTable:
  """Reads the price of each chip.

  Raises:
    UserError: the file is not such a table, or a price has no source.
  """
  file = SHIPPED if path is None else pathlib.Path(path)
  try:
    entries = json.loads(file.read_text(encoding="utf-8"))
  except (OSError, ValueError) as error:
    raise UserError(
      f"--prices={file} cannot be read as JSON ({error}); begin with a copy of"
      f" {SHIPPED}."
    ) from error
  if not isinstance(entries, list):
    raise UserError(
      f"--prices={file} is not a list of prices, as {SHIPPED} is."
    )
  found: dict[str, ChipPrice] = {}
  for number, entry in enumerate(entries, 1):
    price = _chip_price(entry, f"price {number} in {file}")
    found.setdefault(price.chip, price)
  return found


def _chip_price(entry: Any, where: str) -> ChipPrice:
  names = {field.name for field in dataclasses.fields(ChipPrice)}
  if not isinstance(entry, dict) or set(entry) != names:
    raise UserError(
      f"{where} must have {', '.join(sorted(names))} and nothing else; a price"
      " without its source cannot be checked."
    )
  for name in ("chip", "region", "currency", "source", "date"):
    if not isinstance(entry[name], str) or not entry[name].strip():
      raise UserError(f"{name} of {where} must be text, and not empty.")
  for name in ("on_demand", "spot"):
    if not _is_amount(entry[name]) and (name, entry[name]) != ("spot", None):
      raise UserError(
        f"{name}={entry[name]!r} of {where} is not a price per chip-hour; give"
        " a number above zero."
      )
  try:
    datetime.date.fromisoformat(entry["date"])
  except ValueError as error:
    raise UserError(
      f"date={entry['date']} of {where} is not a date; write it as 2026-11-21."
    ) from error
  return ChipPrice(**entry)


def _is_amount(value: Any) -> bool:
  number = isinstance(value, int | float) and not isinstance(value, bool)
  return number and math.isfinite(value) and value > 0
