"""Known features found again: our JumpReLUs beside SAELens', in one run.

  pip install "jaxsae[test]"
  python -m experiments.comparison.synthetic --out=docs/synthetic.md

All learn from the same samples in the same order, at the same width and to the
same L0; `trainers.py` says what else they share. Learning rate, λ and the decay
of Adam's second moment are chosen for each side from one grid by one rule, at
the middle target, with a seed that is not reported: of those whose L0 is within
5 % of the target the one with the largest MCC; if there are none, the one that
comes nearest.
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
from experiments.comparison.output import spread, tell
from experiments.comparison.recovery import Recovery, measure
from experiments.comparison.trainers import (
  Trial,
  train_ours,
  train_ours_free,
  train_saelens,
)
from experiments.comparison.tuning import Outcome, Point, choose

CLOSE = 0.05  # share of its target that an L0 may be off when tuning
SIDES = {
  "jaxsae": train_ours,
  "jaxsae, free directions": train_ours_free,
  "SAELens": train_saelens,
}


@dataclasses.dataclass(frozen=True)
class Comparison:
  """What is compared. Settings are SynthSAEBench's, a sixteenth in size."""

  settings: known.Settings = known.Settings(features=1024, width=128, roots=8)
  width: int = 1024  # latents
  updates: int = 768
  batch: int = 1024  # samples of an update
  targets: tuple[float, ...] = (4, 8, 12)
  seeds: tuple[int, ...] = (1, 2, 3)  # of samples and initial weights
  tuning_seed: int = 0
  rates: tuple[float, ...] = (3e-3,)
  pulls: tuple[float, ...] = (3e-3,)  # λ where ‖x‖² is 1
  decays: tuple[float, ...] = (0.99, 0.999)
  held_out: int = 64  # batches to judge by

  @property
  def tuning_target(self) -> float:
    """The middle one."""
    return self.targets[len(self.targets) // 2]


def main():
  tell(__doc__, lambda: page(Comparison()))


def page(c: Comparison) -> str:
  """All of it: the training, and the tables of what came of it."""
  begin = time.perf_counter()
  features = known.make(jax.random.key(42), c.settings)
  outcomes = compare(c, features)
  minutes = (time.perf_counter() - begin) / 60
  l0 = statistics.fmean(np.mean(m > 0) for _, m in held_out(c, features))
  lines = [title(c, c.settings.features * l0, minutes)]
  lines += [*summary(outcomes), *HEAD]
  lines += [*result_rows(c, outcomes), LEVEL, *level_rows(outcomes)]
  lines += [CHOICE, *grid_rows(outcomes)]
  return "\n".join(lines) + "\n"


def compare(c: Comparison, features: Features) -> dict[str, Outcome]:
  """The name of each side to how it did."""
  points = tune(c, features)
  chosen = {
    name: choose(of_side, c.tuning_target, CLOSE, lambda found: -found.mcc)
    for name, of_side in points.items()
  }
  found = {name: [] for name in SIDES}
  for seed in c.seeds:
    x = samples(c, features, seed)
    for name, train in SIDES.items():
      trial = Trial(x, c.width, c.targets, *chosen[name].values, seed)
      found[name].append(judge(c, features, train(trial)))
  return {
    name: Outcome(points[name], chosen[name], tuple(found[name]))
    for name in SIDES
  }


def tune(c: Comparison, features: Features) -> dict[str, tuple[Point, ...]]:
  """The whole grid for each side."""
  x = samples(c, features, c.tuning_seed)

  def point(train, *values):
    trial = Trial(x, c.width, (c.tuning_target,), *values, c.tuning_seed)
    return Point(*values, *judge(c, features, train(trial)))

  grid = list(itertools.product(c.rates, c.pulls, c.decays))
  return {
    name: tuple(point(train, *values) for values in grid)
    for name, train in SIDES.items()
  }


def judge(c: Comparison, features: Features, saes) -> tuple[Recovery, ...]:
  return tuple(
    measure(sae, features.directions, held_out(c, features)) for sae in saes
  )


def samples(c: Comparison, features: Features, seed: int) -> np.ndarray:
  """What a seed trains on, [U, N, D]."""
  drawn = draws(c, features, 1 + seed, c.updates)
  return np.stack([np.asarray(x) for x, _ in drawn])


def held_out(c: Comparison, features: Features) -> Iterator:
  """What all autoencoders are judged by; in no seed's samples."""
  return draws(c, features, 0, c.held_out)


def draws(c: Comparison, features: Features, stream: int, count: int):
  key = jax.random.fold_in(jax.random.key(42), stream)
  for i in range(count):
    yield known.draw(features, jax.random.fold_in(key, i), c.batch)


def title(c: Comparison, l0: float, minutes: float) -> str:
  s, version = c.settings, importlib.metadata.version
  return f"""# Known features found again

There are {s.features:,} known features in {s.width} dimensions, in trees and
correlated as in SynthSAEBench (arXiv 2602.14687); {l0:.1f} fire at a time. Our
JumpReLU, with directions that are unit throughout and with ones of any norm
(`free_jumprelu`), and SAELens' learn {c.width:,} latents from the same
{c.updates * c.batch:,} samples in the same order and are judged by
{c.held_out * c.batch:,} others. Mean ± standard deviation of {len(c.seeds)}
seeds.

    python -m experiments.comparison.synthetic --out=docs/synthetic.md

Made in {minutes:.0f} minutes on {time.strftime("%Y-%m-%d")}, with
jax {version("jax")}, sae-lens {version("sae-lens")}, torch {version("torch")}.

*MCC* is the mean |cos| of latents and features paired one to one; *unique* how
many features are some latent's nearest, over the latents; *precision*, *recall*
and *F1* hold when a latent is active against when its nearest feature fires;
*shrinkage* is ‖x̂‖/‖x‖. `experiments/comparison/recovery.py` defines them.

Unit directions that start at random turn slowly in so few updates. SAELens'
start at a tenth of that, so they are mostly made by the first updates; so are
those of `free_jumprelu`.
"""


def summary(outcomes: dict[str, Outcome]) -> list[str]:
  """What the tables show."""
  founds = {name: outcome.found for name, outcome in outcomes.items()}
  theirs = founds.pop("SAELens")
  return [
    f"- {name}, less SAELens' at an equal L0 of {l0:.1f}: "
    + ", ".join(
      f"{column} {mean(ours, l0, column) - mean(theirs, l0, column):+.3f}"
      for column in ("MCC", "precision", "recall")
    )
    + "."
    for name, ours in founds.items()
    for l0 in frontier.shared([ours, theirs])[1:2]
  ] + [""]


def mean(found, l0: float, column: str) -> float:
  return statistics.fmean(frontier.at(l0, found, COLUMNS[column]))


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
LEVEL = f"""
At equal L0, each seed's targets joined by a line in log L0, at the least, the
middle and the largest L0 that all of them reach:

| L0 | side | {" | ".join(list(COLUMNS)[1:])} |
|---|---|{"---|" * (len(COLUMNS) - 1)}"""
CHOICE = f"""
Learning rate, λ (for inputs of unit mean squared norm) and the decay β₂ of
Adam's second moment were chosen for each side with one more seed, at the middle
target: of the points whose L0 is within {CLOSE:.0%} of it the one with the
largest MCC; if there are none, the one that comes nearest.

| side | lr | λ | β₂ | L0 | MCC | |
|---|---|---|---|---|---|---|"""


def result_rows(c: Comparison, outcomes: dict[str, Outcome]) -> list[str]:
  """Both sides of a target one below the other."""
  return [
    f"| {target:g} | {name} |"
    + "".join(
      f" {spread([getattr(of_seed[i], figure) for of_seed in outcome.found])} |"
      for figure in COLUMNS.values()
    )
    for i, target in enumerate(c.targets)
    for name, outcome in outcomes.items()
  ]


def level_rows(outcomes: dict[str, Outcome]) -> list[str]:
  sides = [outcome.found for outcome in outcomes.values()]
  return [
    f"| {l0:.2f} | {name} |"
    + "".join(
      f" {spread(frontier.at(l0, outcome.found, figure))} |"
      for figure in list(COLUMNS.values())[1:]
    )
    for l0 in frontier.shared(sides)
    for name, outcome in outcomes.items()
  ]


def grid_rows(outcomes: dict[str, Outcome]) -> list[str]:
  return [
    f"| {name} | {point.rate:g} | {point.pull:g} | {point.decay:g}"
    f" | {point.found.l0:.2f} | {point.found.mcc:.3f} |"
    f" {'chosen' if point is outcome.chosen else ''} |"
    for name, outcome in outcomes.items()
    for point in outcome.points
  ]


if __name__ == "__main__":
  main()
