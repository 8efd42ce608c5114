"""The runs of an experiment as a table."""

from collections.abc import Mapping, Sequence

from rich import box
from rich.table import Table

from jaxsae import tables
from jaxsae.formats.gemma_scope import width_label
from jaxsae.runs.flops import RunFlops
from jaxsae.train.config.run import TrainConfig

_HEADS = ("SAEs", "tokens", "params", "FLOPs\nSAEs", "FLOPs\nLM")


def table(
  configs: Mapping[str, TrainConfig],
  flops: Mapping[str, RunFlops],
  width: int | None = None,
) -> Table:
  """Makes a table of 80 columns: one line per run, and a line of totals.

  Args:
    configs: the runs, by name.
    flops: what each costs.
    width: the columns of the terminal, by default of this one. Where they are
      fewer, the last columns are left out until the names fit.
  """
  made = Table(
    box=box.SIMPLE_HEAD,
    show_edge=False,
    pad_edge=False,
    padding=0,
    show_footer=True,
    caption="FLOPs: of all updates, 10 D F per autoencoder and token (Gemma"
    " Scope's paper: 12), and of each run's forward passes, up to its last"
    " site.",
    caption_justify="left",
  )
  total = sum(flops.values(), RunFlops())
  made.add_column("run", f"{len(configs)} in all", no_wrap=True)
  made.add_column("sites", min_width=12, overflow="fold")
  made.add_column("widths", max_width=9, overflow="fold")
  for head, foot in zip(_HEADS, _cells(total, None), strict=True):
    made.add_column(head, foot, justify="right", no_wrap=True)
  for name, config in configs.items():
    cells = _cells(flops[name], config.tokens)
    made.add_row(name, _sites(config), _widths(config), *cells)
  return tables.fit(made, width)


def _cells(run: RunFlops, tokens: int | None) -> Sequence[str]:
  return (
    f"{run.saes:,}",
    "" if tokens is None else _short(tokens),
    _short(run.parameters),
    f"{run.sae_flops:.2e}".replace("e+", "e"),
    f"{run.lm_flops:.2e}".replace("e+", "e"),
  )


def _short(number: int) -> str:
  """Shortens a number: 4000000000 → `4.0B`."""
  for size, letter in ((10**12, "T"), (10**9, "B"), (10**6, "M")):
    if number >= size:
      return f"{number / size:.1f}{letter}"
  return f"{number:,}"


def _widths(config: TrainConfig) -> str:
  widths = dict.fromkeys(stack.width for stack in config.stacks)
  return " ".join(map(width_label, widths))


def _sites(config: TrainConfig) -> str:
  """Names sites by layer, such as `resid mlp attn 0-25`."""
  every = list(dict.fromkeys(stack.taps for stack in config.stacks))
  layers: dict[str, list[int]] = {}
  first = lambda taps: taps.reads[0].layer
  for layer in sorted(set(map(first, every))):
    where = " ".join(taps.kind for taps in every if first(taps) == layer)
    layers.setdefault(where, []).append(layer)
  return "; ".join(f"{where} {_ranges(n)}" for where, n in layers.items())


def _ranges(numbers: Sequence[int]) -> str:
  """Joins consecutive numbers: [0, 1, 2, 5] → `0-2 5`."""
  ranges: list[list[int]] = []
  for n in numbers:
    if ranges and n == ranges[-1][-1] + 1:
      ranges[-1].append(n)
    else:
      ranges.append([n])
  return " ".join(f"{r[0]}-{r[-1]}" if r[1:] else str(r[0]) for r in ranges)
