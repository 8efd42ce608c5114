"""Recovery of known features: our JumpReLUs beside SAELens'.

  pip install "jaxsae[test]"  # with Python 3.11
  python -m experiments.comparison.synthetic --out=docs/synthetic.md

All train on the same samples in the same order, with the same width and target
L0; `trainers.py` says what else they share. Learning rate, λ and the decay of
Adam's second moment are chosen for each side from one grid, at the middle
target, with a seed that is not reported: the point of largest MCC among those
whose L0 is within 5 % of the target, or, if there are none, the point with the
nearest L0.
"""

import dataclasses
import importlib.metadata
import itertools
import statistics
import time
from collections.abc import Iterator

import jax
import numpy as np

from experiments.comparison import features as known
from experiments.comparison import frontier
from experiments.comparison.features import Features
from experiments.comparison.output import mean_and_std, write_page
from experiments.comparison.recovery import Recovery, measure
from experiments.comparison.trainers import (
  Trial,
  train_ours,
  train_ours_free,
  train_saelens,
)
from experiments.comparison.tuning import Outcome, Point, choose

TOLERANCE = 0.05  # how far L0 may be from its target when tuning, as a share
SIDES = {
  "jaxsae": train_ours,
  "jaxsae, free directions": train_ours_free,
  "SAELens": train_saelens,
}


@dataclasses.dataclass(frozen=True)
class Comparison:
  """The settings: SynthSAEBench's, at a sixteenth of the size."""

  settings: known.Settings = known.Settings(features=1024, width=128, roots=8)
  width: int = 1024  # latents
  updates: int = 768
  batch: int = 1024  # samples per update
  targets: tuple[float, ...] = (4, 8, 12)
  seeds: tuple[int, ...] = (1, 2, 3)  # of samples and initial weights
  tuning_seed: int = 0
  rates: tuple[float, ...] = (3e-3,)
  lambdas: tuple[float, ...] = (3e-3,)  # λ where ‖x‖² is 1
  decays: tuple[float, ...] = (0.99, 0.999)
  held_out: int = 64  # batches to evaluate on

  @property
  def tuning_target(self) -> float:
    """The middle target, at which settings are chosen."""
    return self.targets[len(self.targets) // 2]


def main():
  write_page(__doc__, lambda: page(Comparison()))


def page(c: Comparison) -> str:
  """Trains and evaluates every side, and returns the page with the tables."""
  begin = time.perf_counter()
  features = known.make(jax.random.key(42), c.settings)
  outcomes = compare(c, features)
  minutes = (time.perf_counter() - begin) / 60
  l0 = statistics.fmean(np.mean(m > 0) for _, m in held_out(c, features))
  lines = [title(c, c.settings.features * l0, minutes)]
  lines += [*summary(outcomes), *HEAD]
  lines += [*result_lines(c, outcomes), EQUAL_L0, *equal_l0_lines(outcomes)]
  lines += [CHOICE, *grid_lines(outcomes)]
  return "\n".join(lines) + "\n"


def compare(c: Comparison, features: Features) -> dict[str, Outcome]:
  """Tunes and trains every side; returns {side: outcome}."""
  points, loss = tune(c, features), lambda recovery: -recovery.mcc
  chosen = {
    name: choose(of_side, c.tuning_target, TOLERANCE, loss)
    for name, of_side in points.items()
  }
  results = {name: [] for name in SIDES}
  for seed in c.seeds:
    x = samples(c, features, seed)
    for name, train in SIDES.items():
      trial = Trial(x, c.width, c.targets, *chosen[name].values, seed)
      results[name].append(evaluate(c, features, train(trial)))
  return {
    name: Outcome(points[name], chosen[name], tuple(results[name]))
    for name in SIDES
  }


def tune(c: Comparison, features: Features) -> dict[str, tuple[Point, ...]]:
  """Evaluates every point of the grid for each side."""
  x = samples(c, features, c.tuning_seed)

  def point(train, *values):
    trial = Trial(x, c.width, (c.tuning_target,), *values, c.tuning_seed)
    return Point(*values, *evaluate(c, features, train(trial)))

  grid = list(itertools.product(c.rates, c.lambdas, c.decays))
  return {
    name: tuple(point(train, *values) for values in grid)
    for name, train in SIDES.items()
  }


def evaluate(c: Comparison, features: Features, saes) -> tuple[Recovery, ...]:
  """Evaluates each autoencoder on the held-out samples."""
  return tuple(
    measure(sae, features.directions, held_out(c, features)) for sae in saes
  )


def samples(c: Comparison, features: Features, seed: int) -> np.ndarray:
  """Draws the samples that a seed trains on, [U, N, D]."""
  drawn = draws(c, features, 1 + seed, c.updates)
  return np.stack([np.asarray(x) for x, _ in drawn])


def held_out(c: Comparison, features: Features) -> Iterator:
  """Draws the samples for evaluation, on which no seed trains."""
  return draws(c, features, 0, c.held_out)


def draws(c: Comparison, features: Features, stream: int, count: int):
  key = jax.random.fold_in(jax.random.key(42), stream)
  for i in range(count):
    yield known.draw(features, jax.random.fold_in(key, i), c.batch)


def title(c: Comparison, l0: float, minutes: float) -> str:
  s, version = c.settings, importlib.metadata.version
  return f"""# Recovery of known features

There are {s.features:,} known features in {s.width} dimensions, arranged in
trees and correlated as in SynthSAEBench (arXiv 2602.14687); {l0:.1f} fire at a
time. Our JumpReLU with unit directions, ours with directions of any norm
(`free_jumprelu`), and SAELens' JumpReLU each train {c.width:,} latents on the
same {c.updates * c.batch:,} samples in the same order and are evaluated on
{c.held_out * c.batch:,} others. Figures are mean ± standard deviation over
{len(c.seeds)} seeds.

    python -m experiments.comparison.synthetic --out=docs/synthetic.md

Made in {minutes:.0f} minutes on {time.strftime("%Y-%m-%d")}, with
jax {version("jax")}, sae-lens {version("sae-lens")}, torch {version("torch")}.

*MCC* is the mean |cos| of latents and features paired one to one; *unique* is
the number of features that are some latent's nearest, divided by the number of
latents; *precision*, *recall* and *F1* compare when a latent is active with
when its nearest feature fires; *shrinkage* is ‖x̂‖/‖x‖.
`experiments/comparison/recovery.py` defines them.

Random unit directions turn slowly, and there are few updates here. SAELens'
directions start at a tenth of that norm, so the first updates mostly determine
them; the same is true of `free_jumprelu`.
"""


def summary(outcomes: dict[str, Outcome]) -> list[str]:
  """A list with the differences of ours from SAELens' at the middle L0."""
  results = {name: outcome.results for name, outcome in outcomes.items()}
  theirs = results.pop("SAELens")
  return [
    f"- {name} minus SAELens at an equal L0 of {l0:.1f}: "
    + ", ".join(
      f"{column} {mean(ours, l0, column) - mean(theirs, l0, column):+.3f}"
      for column in ("MCC", "precision", "recall")
    )
    + "."
    for name, ours in results.items()
    for l0 in frontier.shared_l0s([ours, theirs])[1:2]
  ] + [""]


def mean(results, l0: float, column: str) -> float:
  """The mean over seeds of one column's figure at an L0."""
  return statistics.fmean(frontier.at(l0, results, COLUMNS[column]))


COLUMNS = {
  "L0": "l0",
  "MCC": "mcc",
  "unique": "uniqueness",
  "precision": "precision",
  "recall": "recall",
  "F1": "f1",
  "R²": "r2",
  "dead": "dead",
  "shrinkage": "shrinkage",
}
HEAD = [
  f"| target L0 | side | {' | '.join(COLUMNS)} |",
  "|---|---|" + "---|" * len(COLUMNS),
]
EQUAL_L0 = f"""
At equal L0, interpolated for each seed along a line in log L0, at the smallest,
the middle and the largest L0 that all of them reach:

| L0 | side | {" | ".join(list(COLUMNS)[1:])} |
|---|---|{"---|" * (len(COLUMNS) - 1)}"""
CHOICE = f"""
Learning rate, λ (for inputs of unit mean squared norm) and the decay β₂ of
Adam's second moment were chosen for each side with an additional seed, at the
middle target: the point of largest MCC among those whose L0 is within
{TOLERANCE:.0%} of the target, or, if there are none, the point with the nearest
L0.

| side | lr | λ | β₂ | L0 | MCC | |
|---|---|---|---|---|---|---|"""


def result_lines(c: Comparison, outcomes: dict[str, Outcome]) -> list[str]:
  """The table's lines for every target and side, ordered by target."""
  column = lambda outcome, i, figure: mean_and_std(
    [getattr(of_seed[i], figure) for of_seed in outcome.results]
  )
  return [
    f"| {target:g} | {name} |"
    + "".join(f" {column(outcome, i, f)} |" for f in COLUMNS.values())
    for i, target in enumerate(c.targets)
    for name, outcome in outcomes.items()
  ]


def equal_l0_lines(outcomes: dict[str, Outcome]) -> list[str]:
  """The table's lines for every shared L0 and side, ordered by L0."""
  sides = [outcome.results for outcome in outcomes.values()]
  return [
    f"| {l0:.2f} | {name} |"
    + "".join(
      f" {mean_and_std(frontier.at(l0, outcome.results, figure))} |"
      for figure in list(COLUMNS.values())[1:]
    )
    for l0 in frontier.shared_l0s(sides)
    for name, outcome in outcomes.items()
  ]


def grid_lines(outcomes: dict[str, Outcome]) -> list[str]:
  """The table's lines for every side and grid point."""
  return [
    f"| {name} | {point.rate:g} | {point.sparsity_coefficient:g}"
    f" | {point.decay:g}"
    f" | {point.result.l0:.2f} | {point.result.mcc:.3f} |"
    f" {'chosen' if point is outcome.chosen else ''} |"
    for name, outcome in outcomes.items()
    for point in outcome.points
  ]


if __name__ == "__main__":
  main()
