"""Applies `--a.b=value` to nested frozen dataclasses, and stores them as JSON.

A setting is an `int`, `float`, `bool`, `str`, `Literal` of strings or a class
with `parse(str)` and `__str__`; or a tuple of these; or any of them `| None`.
Settings are fields of dataclasses, which may be nested or in tuples. `--help`
explains a setting by the comment behind its field or above it. Numbers and
text declare their ranges, as in `Count` and `Positive`; a config that calls
`check` when it is made is held to them.
"""

from jaxsae.overrides.checks import SettingError as SettingError
from jaxsae.overrides.checks import check as check
from jaxsae.overrides.command_line import help_text as help_text
from jaxsae.overrides.command_line import parse as parse
from jaxsae.overrides.command_line import parse_several as parse_several
from jaxsae.overrides.command_line import words_and_flags as words_and_flags
from jaxsae.overrides.kinds import show as show
from jaxsae.overrides.ranges import MOST as MOST
from jaxsae.overrides.ranges import Count as Count
from jaxsae.overrides.ranges import CountOrZero as CountOrZero
from jaxsae.overrides.ranges import Label as Label
from jaxsae.overrides.ranges import Piece as Piece
from jaxsae.overrides.ranges import Place as Place
from jaxsae.overrides.ranges import PlaceOrEmpty as PlaceOrEmpty
from jaxsae.overrides.ranges import Positive as Positive
from jaxsae.overrides.ranges import PositiveOrZero as PositiveOrZero
from jaxsae.overrides.ranges import Range as Range
from jaxsae.overrides.ranges import Seed as Seed
from jaxsae.overrides.ranges import Share as Share
from jaxsae.overrides.record import Added as Added
from jaxsae.overrides.record import from_json as from_json
from jaxsae.overrides.record import to_json as to_json
from jaxsae.overrides.settings import differences as differences
from jaxsae.overrides.settings import settings as settings
