"""The values that a setting may have, declared as part of its type.

  rows: Count | None = None
  lr: Positive = 7e-5

`checks.check` holds a setting to them, and `--help` shows them.
"""

import dataclasses
import typing
import unicodedata
from typing import Annotated, Any, Literal


@dataclasses.dataclass(frozen=True)
class Range:
  """The numbers from `low` to `high`, or below `high`."""

  low: float
  high: float
  below: bool = False

  def allows(self, value: float) -> bool:
    """Returns whether a number is in the range; NaN never is."""
    within = value < self.high if self.below else value <= self.high
    return self.low <= value and within

  def __str__(self) -> str:
    end = ", below " if self.below else " to "
    return f"from {_typed(self.low)}{end}{_typed(self.high)}"


@dataclasses.dataclass(frozen=True)
class Text:
  """Text of `least` to `most` characters of a kind."""

  least: int = 1
  most: int = 4096  # the longest path that Linux takes
  of: Literal[
    "characters", "characters in one line", "printable characters"
  ] = "characters in one line"

  def allows(self, value: str) -> bool:
    """Returns whether a text may be given."""
    kinds = {unicodedata.category(character) for character in value}
    suits = {
      "characters": True,
      "characters in one line": kinds.isdisjoint({"Cc", "Zl", "Zp"}),
      "printable characters": value.isprintable(),
    }
    return self.least <= len(value) <= self.most and suits[self.of]

  def __str__(self) -> str:
    return f"of {self.least} to {self.most} {self.of}"


# Counts of updates, latents, devices and the like are 32 bits wide in arrays.
MOST = 2 * 10**9

Count = Annotated[int, Range(1, MOST)]
CountOrZero = Annotated[int, Range(0, MOST)]
Seed = Annotated[int, Range(0, 2**32 - 1)]
# What float32 can hold, with room for what is computed from it.
Positive = Annotated[float, Range(1e-30, 1e6)]
PositiveOrZero = Annotated[float, Range(0, 1e6)]
Share = Annotated[float, Range(0, 1)]
Label = Annotated[str, Text(most=100, of="printable characters")]
Piece = Annotated[str, Text(most=100, of="characters")]
Place = Annotated[str, Text()]
PlaceOrEmpty = Annotated[str, Text(least=0)]


def bare(kind: Any) -> Any:
  """Returns a type without the range that is declared with it."""
  is_ranged = typing.get_origin(kind) is Annotated
  return typing.get_args(kind)[0] if is_ranged else kind


def limit_of(kind: Any) -> Range | Text | None:
  """Returns the range that is declared with a type, itself or in a tuple."""
  if typing.get_origin(kind) is Annotated:
    return typing.get_args(kind)[1]
  found = (limit_of(item) for item in typing.get_args(kind))
  return next((limit for limit in found if limit is not None), None)


def _typed(number: float) -> str:
  """Returns a number as a person would type it, as in 2e9."""
  short = f"{number:g}".replace("e+0", "e").replace("e+", "e")
  return short if float(short) == number else str(number)
