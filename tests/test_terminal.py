"""What is printed reaches any terminal, and nothing ends for its characters."""

import io
import os
import pathlib
import subprocess
import sys

import pytest
from rich.console import Console
from rich.table import Table

from jaxsae import terminal

pytestmark = pytest.mark.slow

ROOT = pathlib.Path(__file__).parents[1]
ASCII = {"PYTHONIOENCODING": "ascii"}
# Not even Python's own way out of the C locale.
C = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}


def run(arguments, environment):
  kept = {"PATH": os.environ["PATH"], "JAX_PLATFORMS": "cpu"}
  return subprocess.run(
    [sys.executable, *arguments],
    capture_output=True,
    cwd=ROOT,
    env=kept | environment | {"PYTHONPATH": str(ROOT)},
  )


@pytest.mark.parametrize("environment", [ASCII, C], ids=["ascii", "C"])
def test_what_cannot_be_written_is_spelled_out(environment):
  said, error = "reading … 2 × λ, é", "no θ in 日"
  code = (
    "from jaxsae.errors import exit_on_user_error, UserError\n"
    "with exit_on_user_error():\n"
    f"  print({said!a}); raise UserError({error!a})"
  )
  done = run(["-c", code], environment)
  assert done.returncode == 2
  assert done.stdout == b"reading ... 2 x lambda, \\xe9\n"
  assert done.stderr == b"error: no theta in \\u65e5\n"


@pytest.mark.parametrize("width", [8, 12, 16, 24, 79, 80])
def test_a_table_loses_columns_and_no_part_of_its_names(width):
  made = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
  made.add_column("name", overflow="fold")
  for head in ("first", "second", "third"):
    made.add_column(head, justify="right", no_wrap=True)
  made.add_row("a name", "1111", "2", "3")
  made.add_row("b", "11", "22", "33333")
  out = io.StringIO()
  Console(file=out, width=width).print(terminal.fit(made, width, ["second"]))
  lines = [line.rstrip() for line in out.getvalue().splitlines()]
  assert max(map(len, lines)) <= width
  assert lines[1].split()[:2] == ["a", "name"]
  shown = {8: [], 12: ["1111"], 16: ["1111"]}.get(width)
  if width == 24:
    shown = ["1111", "3"]
  assert lines[1].split()[2:] == (
    ["1111", "2", "3"] if shown is None else shown
  )


def test_utf8_stays_as_it_is():
  code = f"from jaxsae import pod; pod.print_on_leader({'2 × λ …'!a})"
  done = run(["-c", code], {"PYTHONIOENCODING": "utf-8"})
  assert done.stdout.decode() == "2 × λ …\n"


@pytest.mark.parametrize(
  "arguments",
  [
    ["-m", "experiments.quickstart", "--help"],
    ["-m", "jaxsae.cli", "eval", "--help"],
    ["-m", "launch", "create", "--help"],
  ],
  ids=lambda words: words[1],
)
def test_help_reaches_a_terminal_of_ascii(arguments):
  done = run(arguments, ASCII)
  assert done.returncode == 0 and b"Traceback" not in done.stderr
  assert len(done.stdout) > 300
