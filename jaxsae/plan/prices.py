"""Prices of chips: a table that users can edit, with a source for each price.

`prices.json` beside this file is a list of prices; `--prices=FILE` takes
another list of the same form. If a chip has several prices, the first counts.
An entry with `storage` instead of `chip` is the price of a bucket.
"""

import dataclasses
import datetime
import json
import math
import pathlib
from typing import Any, TypeVar

from jaxsae.errors import UserError
from jaxsae.files import expanded

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


@dataclasses.dataclass(frozen=True)
class StoragePrice:
  """The price of a bucket for a month.

  Attributes:
    storage: the class of storage.
    region: region of the cloud.
    currency: currency of the price, as in USD.
    gib_month: price of one GiB (2³⁰ bytes) that is kept for a month.
    source: where the price was read.
    date: when the price was read, as in 2026-11-21.
  """

  storage: str
  region: str
  currency: str
  gib_month: float
  source: str
  date: str


class PriceTable(dict[str, ChipPrice]):
  """The price of each chip, by its name.

  Attributes:
    storage: the price of a bucket; None if it is not known.
  """

  storage: StoragePrice | None = None


def read(path: str | None = None) -> PriceTable:
  """Reads the price of each chip and, if the table has one, of a bucket.

  Raises:
    UserError: the file is not such a table, or a price has no source.
  """
  file = SHIPPED if path is None else pathlib.Path(expanded(path))
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
  found = PriceTable()
  for number, entry in enumerate(entries, 1):
    where = f"price {number} in {file}"
    if isinstance(entry, dict) and "storage" in entry:
      price = _price(StoragePrice, entry, where)
      found.storage = found.storage or price
    else:
      price = _price(ChipPrice, entry, where)
      found.setdefault(price.chip, price)
  return found


Price = TypeVar("Price", ChipPrice, StoragePrice)
_AMOUNTS = {
  "on_demand": "per chip-hour",
  "spot": "per chip-hour",
  "gib_month": "per GiB and month",
}


def _price(kind: type[Price], entry: Any, where: str) -> Price:
  names = {field.name for field in dataclasses.fields(kind)}
  if not isinstance(entry, dict) or set(entry) != names:
    raise UserError(
      f"{where} must have {', '.join(sorted(names))} and nothing else; a price"
      " without its source cannot be checked."
    )
  for name in sorted(names - _AMOUNTS.keys()):
    if not isinstance(entry[name], str) or not entry[name].strip():
      raise UserError(f"{name} of {where} must be text, and not empty.")
  for name in sorted(names & _AMOUNTS.keys()):
    if not _is_amount(entry[name]) and (name, entry[name]) != ("spot", None):
      raise UserError(
        f"{name}={entry[name]!r} of {where} is not a price {_AMOUNTS[name]};"
        " give a number above zero."
      )
  try:
    datetime.date.fromisoformat(entry["date"])
  except ValueError as error:
    raise UserError(
      f"date={entry['date']} of {where} is not a date; write it as 2026-11-21."
    ) from error
  return kind(**entry)


def _is_amount(value: Any) -> bool:
  number = isinstance(value, int | float) and not isinstance(value, bool)
  return number and math.isfinite(value) and value > 0
