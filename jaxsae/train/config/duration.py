"""A length of time as a setting, such as 20min."""

import dataclasses
import re

from jaxsae.errors import UserError

_UNITS = {"s": 1, "min": 60, "h": 3600}


@dataclasses.dataclass(frozen=True)
class Duration:
  """A length of time, written 90s, 20min or 1.5h."""

  seconds: float
  text: str = dataclasses.field(compare=False)

  def __str__(self) -> str:
    return self.text

  @classmethod
  def parse(cls, text: str) -> "Duration":
    """Parses `"20min"`; `30m` stands for `30min`.

    Raises:
      UserError: it is not a length of time, or none at all.
    """
    match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)(s|m|min|h)", text)
    if not match or not float(match[1]):
      raise UserError(
        "a time is a number above zero and s, min or h, as in 20min or 1.5h"
      )
    number, unit = match.groups()
    unit = "min" if unit == "m" else unit
    return cls(float(number) * _UNITS[unit], f"{number}{unit}")
