"""How sides did on a language model: the tables of the page."""

import statistics
from collections.abc import Sequence

from experiments.comparison import frontier
from experiments.comparison.frontier import at
from experiments.comparison.output import spread
from experiments.comparison.tuning import Outcome

Outcomes = dict[str, Outcome]  # of each side, by its name

TRAINED = """
## As trained

| target L0 | autoencoder | L0 | FVU | delta loss | dead |
|---|---|---|---|---|---|"""
LEVEL = """
## At equal L0

The same autoencoders, each seed's targets joined by a line in log L0, at the
least, the middle and the largest L0 that all of them reach.

| L0 | autoencoder | FVU | delta loss |
|---|---|---|---|"""
CHOSEN = """
## Settings

| autoencoder | lr | λ | L0 | FVU | |
|---|---|---|---|---|---|"""


def trained(targets: Sequence[float], outcomes: Outcomes) -> list[str]:
  """Every side of a target one below the other."""
  digits = {"l0": 1, "fvu": 4, "delta_loss": 3, "dead": 3}
  return [
    f"| {target:g} | {name} |"
    + "".join(
      f" {spread([getattr(s[i], figure) for s in outcome.found], places)} |"
      for figure, places in digits.items()
    )
    for i, target in enumerate(targets)
    for name, outcome in outcomes.items()
  ]


def shared(outcomes: Outcomes) -> tuple[float, ...]:
  """L0s that all seeds of all sides reach."""
  return frontier.shared([outcome.found for outcome in outcomes.values()])


def level(outcomes: Outcomes) -> list[str]:
  return [
    f"| {l0:.1f} | {name} | {spread(at(l0, outcome.found, 'fvu'), 4)} |"
    f" {spread(at(l0, outcome.found, 'delta_loss'))} |"
    for l0 in shared(outcomes)
    for name, outcome in outcomes.items()
  ]


def ratios(outcomes: Outcomes, ours: str, theirs: str, figure: str) -> str:
  """Ours over theirs at the shared L0s, as in 0.98, 1.01 and 1.00."""
  mean = lambda name, l0: statistics.fmean(at(l0, outcomes[name].found, figure))
  found = [mean(ours, l0) / mean(theirs, l0) for l0 in shared(outcomes)]
  *first, last = [f"{ratio:.2f}" for ratio in found] or ["of no L0 known"]
  return " and ".join([", ".join(first), last]) if first else last


def chosen(outcomes: Outcomes) -> list[str]:
  """The grids; λ means nothing to BatchTopK."""
  return [
    f"| {name} | {point.rate:g} |"
    f" {'' if 'BatchTopK' in name else f'{point.pull:g}'} |"
    f" {point.found.l0:.1f} | {point.found.fvu:.4f} |"
    f" {'chosen' if point is outcome.chosen else ''} |"
    for name, outcome in outcomes.items()
    for point in outcome.points
  ]
