"""The tables of the page about quality on a language model."""

import statistics
from collections.abc import Sequence

from experiments.comparison import frontier
from experiments.comparison.frontier import at
from experiments.comparison.output import mean_and_std
from experiments.comparison.tuning import Outcome

Outcomes = dict[str, Outcome]  # side → its outcome

TRAINED = """
## As trained

| target L0 | autoencoder | L0 | FVU | delta loss | dead |
|---|---|---|---|---|---|"""
EQUAL_L0 = """
## At equal L0

The same autoencoders, interpolated for each seed along a line in log L0, at the
smallest, the middle and the largest L0 that all of them reach.

| L0 | autoencoder | FVU | delta loss |
|---|---|---|---|"""
SETTINGS = """
## Settings

| autoencoder | lr | λ | L0 | FVU | |
|---|---|---|---|---|---|"""


def trained(targets: Sequence[float], outcomes: Outcomes) -> list[str]:
  """The table's lines for every target and side, ordered by target."""
  digits = {"l0": 1, "fvu": 4, "delta_loss": 3, "dead": 3}
  column = lambda outcome, i, figure: mean_and_std(
    [getattr(of_seed[i], figure) for of_seed in outcome.results],
    digits[figure],
  )
  return [
    f"| {target:g} | {name} |"
    + "".join(f" {column(outcome, i, figure)} |" for figure in digits)
    for i, target in enumerate(targets)
    for name, outcome in outcomes.items()
  ]


def shared_l0s(outcomes: Outcomes) -> tuple[float, ...]:
  """L0s that all seeds of all sides reach."""
  return frontier.shared_l0s([o.results for o in outcomes.values()])


def equal_l0(outcomes: Outcomes) -> list[str]:
  """The table's lines for every shared L0 and side, ordered by L0."""
  return [
    f"| {l0:.1f} | {name} | {mean_and_std(at(l0, outcome.results, 'fvu'), 4)} |"
    f" {mean_and_std(at(l0, outcome.results, 'delta_loss'))} |"
    for l0 in shared_l0s(outcomes)
    for name, outcome in outcomes.items()
  ]


def ratios(outcomes: Outcomes, ours: str, theirs: str, figure: str) -> str:
  """Ours divided by theirs at the shared L0s, like "0.98, 1.01 and 1.00"."""
  mean = lambda name, l0: statistics.fmean(
    at(l0, outcomes[name].results, figure)
  )
  values = [mean(ours, l0) / mean(theirs, l0) for l0 in shared_l0s(outcomes)]
  *first, last = [f"{value:.2f}" for value in values] or ["no shared L0"]
  return " and ".join([", ".join(first), last]) if first else last


def settings(outcomes: Outcomes) -> list[str]:
  """The table's lines for every side and grid point; BatchTopK has no λ."""
  return [
    f"| {name} | {point.rate:g} |"
    f" {'' if 'BatchTopK' in name else f'{point.sparsity_coefficient:g}'} |"
    f" {point.result.l0:.1f} | {point.result.fvu:.4f} |"
    f" {'chosen' if point is outcome.chosen else ''} |"
    for name, outcome in outcomes.items()
    for point in outcome.points
  ]
