"""What chips cost: a table that its users edit, with a source for each price.

`prices.json` beside this file is a list of prices; `--prices=FILE` takes
another of the same form. Of several for a chip, the first counts.
"""

import dataclasses
import datetime
import json
import math
import pathlib

from jaxsae.errors import UserError

SHIPPED = pathlib.Path(__file__).parent / "prices.json"


@dataclasses.dataclass(frozen=True)
class ChipPrice:
  """Of an hour of one chip.

  Attributes:
    chip: as in a topology.
    region: where.
    currency: as in USD.
    on_demand: for as long as one wants it.
    spot: for as long as nobody else does; None where it is not known.
    source: where the price was read.
    date: when, as in 2026-11-21.
  """

  chip: str
  region: str
  currency: str
  on_demand: float
  spot: float | None
  source: str
  date: str


def read(path: str | None = None) -> dict[str, ChipPrice]:
  """The price of each chip.

  Raises:
    UserError: the file is no such table, or a price has no source.
  """
  path = SHIPPED if path is None else pathlib.Path(path)
  try:
    entries = json.loads(path.read_text(encoding="utf-8"))
  except (OSError, ValueError) as error:
    raise UserError(
      f"--prices={path} can not be read as JSON ({error}); begin with a copy of"
      f" {SHIPPED}."
    ) from error
  if not isinstance(entries, list):
    raise UserError(
      f"--prices={path} is not a list of prices, as {SHIPPED} is."
    )
  found: dict[str, ChipPrice] = {}
  for number, entry in enumerate(entries, 1):
    price = _chip_price(entry, f"price {number} in {path}")
    found.setdefault(price.chip, price)
  return found


def _chip_price(entry, where: str) -> ChipPrice:
  names = {field.name for field in dataclasses.fields(ChipPrice)}
  if not isinstance(entry, dict) or set(entry) != names:
    raise UserError(
      f"{where} must have {', '.join(sorted(names))} and nothing else; without"
      " its source a price is worth nothing."
    )
  for name in ("chip", "region", "currency", "source", "date"):
    if not isinstance(entry[name], str) or not entry[name].strip():
      raise UserError(f"{name} of {where} is empty; say it in words.")
  for name in ("on_demand", "spot"):
    if not _is_amount(entry[name]) and (name, entry[name]) != ("spot", None):
      raise UserError(
        f"{name}={entry[name]!r} of {where} is no amount for an hour of a chip;"
        " give a number above zero."
      )
  try:
    datetime.date.fromisoformat(entry["date"])
  except ValueError as error:
    raise UserError(
      f"date={entry['date']} of {where} is no date; write it as 2026-11-21."
    ) from error
  return ChipPrice(**entry)


def _is_amount(value) -> bool:
  number = isinstance(value, int | float) and not isinstance(value, bool)
  return number and math.isfinite(value) and value > 0
