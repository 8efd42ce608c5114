"""Prints a comparison and, if asked, writes it to a page."""

import argparse
import pathlib
import statistics
from collections.abc import Callable, Sequence

from jaxsae.files import whole_file


def write_page(doc: str, make: Callable[[], str]) -> None:
  """Prints a page and, with `--out=FILE`, writes it whole or not at all.

  Args:
    doc: the script's docstring; its first line is shown by `--help`.
    make: makes the page; called after the command line has been parsed.
  """
  parser = argparse.ArgumentParser(description=doc.splitlines()[0])
  parser.add_argument("--out", type=pathlib.Path, help="also write it here")
  out = parser.parse_args().out
  text = make()
  print(text, end="")
  if out:
    with whole_file(out) as partial:
      partial.write_text(text, encoding="utf-8")


def mean_and_std(values: Sequence[float], digits: int = 3) -> str:
  """Mean ± standard deviation of the seeds; a single value without ±."""
  shown = f"{statistics.fmean(values):.{digits}f}"
  if len(values) == 1:
    return shown
  return f"{shown} ± {statistics.stdev(values):.{digits}f}"
