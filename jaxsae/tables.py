"""Tables that keep their names whole where the terminal is narrow."""

import copy
from collections.abc import Sequence

import rich
from rich.cells import cell_len
from rich.measure import Measurement
from rich.table import Column, Table

_WIDTH = 80  # characters, for which tables are made


def fit(
  table: Table, width: int | None = None, least: Sequence[str] = ()
) -> Table:
  """Returns a table without the columns for which a terminal has no room.

  Its first column, with the names, stays. From 80 columns on nothing is left
  out, and long names go on in the next line.

  Args:
    table: the table.
    width: the columns of the terminal, by default of this one.
    least: heads of columns that go first, in this order; after these, the last
      column goes first.
  """
  console = rich.get_console()
  width = width or console.width
  if width >= _WIDTH:
    return table
  options = console.options.update_width(10_000)
  kept = list(table.columns)
  in_order = [next(x for x in kept if x.header == head) for head in least]
  in_order += [x for x in reversed(kept[1:]) if x not in in_order]
  for column in in_order:
    made = _of_columns(table, kept)
    if Measurement.get(console, options, made).minimum <= width:
      return made
    kept.remove(column)
  return _of_columns(table, kept, whole=False)


def _of_columns(
  table: Table, columns: Sequence[Column], whole: bool = True
) -> Table:
  """Makes a table like another of some columns, all names whole or not."""
  made = copy.copy(table)
  made.columns, made.rows = [], []
  for index, one in enumerate(columns):
    is_whole = one.no_wrap or (index == 0 and whole)
    made.add_column(
      one.header,
      one.footer,
      justify=one.justify,
      overflow=one.overflow,
      no_wrap=one.no_wrap,
      min_width=_longest_line(one) if is_whole else one.min_width,
      max_width=one.max_width,
    )
  rows = zip(*(one.cells for one in columns), strict=True)
  for cells, row in zip(rows, table.rows, strict=True):
    made.add_row(*cells, style=row.style)
  return made


def _longest_line(column: Column) -> int:
  texts = map(str, [column.header, column.footer, *column.cells])
  return max(cell_len(line) for text in texts for line in text.split("\n"))
