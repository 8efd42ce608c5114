"""How a comparison is told: printed, and on request written to a page."""

import argparse
import pathlib
import statistics
from collections.abc import Callable, Sequence

from jaxsae.files import whole_file


def tell(doc: str, make: Callable[[], str]) -> None:
  """Prints what is made, and with `--out=FILE` writes it whole or not at all.

  Args:
    doc: of the script, for `--help`.
    make: makes the page; called once the command line is understood.
  """
  parser = argparse.ArgumentParser(description=doc.splitlines()[0])
  parser.add_argument("--out", type=pathlib.Path, help="also write it here")
  out = parser.parse_args().out
  text = make()
  print(text, end="")
  if out:
    with whole_file(out) as partial:
      partial.write_text(text, encoding="utf-8")


def spread(values: Sequence[float], digits: int = 3) -> str:
  """Mean ± standard deviation of the seeds; of one, it alone."""
  shown = f"{statistics.fmean(values):.{digits}f}"
  if len(values) == 1:
    return shown
  return f"{shown} ± {statistics.stdev(values):.{digits}f}"
