"""The table of an evaluation, for a terminal."""

import math
from collections.abc import Callable, Mapping

from rich import box
from rich.table import Table

from jaxsae import tables
from jaxsae.evals.result import Result


def table(results: Mapping[str, Result], width: int | None = None) -> Table:
  """Makes a table of at most 80 columns with a line for each autoencoder.

  Below it are lines for its controls.

  Args:
    results: the results of `evaluate`.
    width: the columns of the terminal, by default of this one. Where they are
      fewer, figures are left out until the names fit.
  """
  tokens = {f"{result.tokens:,}" for result in results.values()}
  made = Table(
    box=box.SIMPLE_HEAD,
    show_edge=False,
    pad_edge=False,
    padding=(0, 1, 0, 0),
    caption=f"On {' or '.join(sorted(tokens))} tokens of held-out text."
    " Recovered: how much of the loss that ablation adds the autoencoder"
    " avoids.",
    caption_justify="left",
  )
  made.add_column("autoencoder", overflow="fold")
  for head in _FIGURES:
    made.add_column(head, justify="right", no_wrap=True)
  for result in results.values():
    made.add_row(result.name, *(show(result) for show in _FIGURES.values()))
    for kind, control in result.controls.items():
      figures = [_of_control(control, head) for head in _FIGURES]
      made.add_row(f"  {kind.replace('_', ' ')}", *figures, style="dim")
  return tables.fit(made, width, _DISPENSABLE)


# The figures by their heads, in order; and those that are left out first where
# there is no room.
_FIGURES: Mapping[str, Callable[[Result], str]] = {
  "width": lambda r: str(r.width),
  "L0": lambda r: _number(r.l0, ".1f"),
  "FVU": lambda r: _number(r.fvu, ".3f"),
  "delta\nloss": lambda r: _number(r.delta_loss, ".4f"),
  "recovered\n(zero)": lambda r: _number(r.loss_recovered_zero, ".3f"),
  "recovered\n(mean)": lambda r: _number(r.loss_recovered_mean, ".3f"),
  "dead": lambda r: _number(r.dead, ".1%"),
}
_DISPENSABLE = ("width", "recovered\n(mean)", "dead", "recovered\n(zero)")


def _of_control(control: Result, head: str) -> str:
  """Returns a figure of a control, but none of its own shape."""
  return "" if head in ("width", "dead") else _FIGURES[head](control)


def _number(value: float, form: str) -> str:
  return format(value, form) if math.isfinite(value) else "-"
