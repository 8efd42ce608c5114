"""Tables fit into narrow terminals, and no name is cut."""

import io

import pytest
from rich.console import Console
from rich.table import Table

from jaxsae import tables


@pytest.mark.parametrize("width", [8, 12, 16, 24, 79, 80])
def test_a_table_loses_columns_and_no_part_of_its_names(width):
  made = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
  made.add_column("name", overflow="fold")
  for head in ("first", "second", "third"):
    made.add_column(head, justify="right", no_wrap=True)
  made.add_row("a name", "1111", "2", "3")
  made.add_row("b", "11", "22", "33333")
  out = io.StringIO()
  Console(file=out, width=width).print(tables.fit(made, width, ["second"]))
  lines = [line.rstrip() for line in out.getvalue().splitlines()]
  assert max(map(len, lines)) <= width
  assert lines[1].split()[:2] == ["a", "name"]
  shown = {8: [], 12: ["1111"], 16: ["1111"]}.get(width)
  if width == 24:
    shown = ["1111", "3"]
  assert lines[1].split()[2:] == (
    ["1111", "2", "3"] if shown is None else shown
  )
