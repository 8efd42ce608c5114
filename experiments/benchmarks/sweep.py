"""A sweep from one forward pass, by number of autoencoders: ours and SAELens'.

  pip install "jaxsae[test]"  # with Python 3.11
  python -m experiments.benchmarks.sweep

Autoencoders of width 2,048 at three sites of the small Gemma 2, with one to
four targets of L0 each, in float32 on this machine's CPU; SAELens' side is its
MultiSAETrainingRunner. Settings and turns are those of `end_to_end`, with 1,024
tokens per update. The last lines fit a line to the four times by least squares:
its intercept is the time of the language model and the shuffle, its slope that
of each autoencoder. *Arithmetic* is the time of an autoencoder's 10·D·F FLOPs
per token at the rate of a plain product of the same sizes in JAX, measured in
the same turns.
"""

import dataclasses
import pathlib
import statistics
import tempfile

import numpy as np

from experiments.benchmarks import product, table, turns
from experiments.benchmarks.ours import Training
from experiments.benchmarks.saelens import SweepTraining
from experiments.benchmarks.settings import Settings
from jaxsae.lm import Site

SETTINGS = Settings(
  sites=(Site("resid", 1), Site("resid", 3), Site("mlp", 3)),
  targets=(12.0, 24.0, 48.0, 96.0),
)


def main(settings=SETTINGS, rounds=turns.TURNS):
  sizes, ours, theirs, limit = measure(settings, rounds)
  table.head(
    *("autoencoders", "ours µs per token", "SAELens µs per token", "ratio")
  )
  micro = 1e6 / settings.bucket_tokens
  for size, mine, other in zip(sizes, ours, theirs, strict=True):
    table.row(
      size,
      f"{micro * statistics.median(mine):.1f}",
      f"{micro * statistics.median(other):.1f}",
      f"{turns.ratio(other, mine):.2f}",
    )
  own = product.IN_AN_UPDATE * min(limit) / settings.update_tokens * 1e6
  print(f"\nArithmetic of one autoencoder: {own:.2f} µs per token.")
  for name, times in (("Ours", ours), ("SAELens", theirs)):
    each, fixed = line(sizes, [micro * statistics.median(t) for t in times])
    print(
      f"{name}: {fixed:.1f} µs per token, and {each:.2f} for each autoencoder,"
      f" {each / own:.2f} times its arithmetic."
    )


def measure(settings, rounds):
  """Returns numbers of autoencoders, and times of both sides and a product."""
  counts = range(1, len(settings.targets) + 1)
  ours, theirs = [], []
  for count in counts:
    targets = settings.targets[:count]
    ours.append(Training(dataclasses.replace(settings, targets=targets)))
    with tempfile.TemporaryDirectory() as folder:
      theirs.append(SweepTraining(ours[-1], pathlib.Path(folder) / "lm"))
  depth = settings.sites[0].width(ours[0].lm.config)
  limit = product.turn(settings.update_tokens, depth, settings.width)
  both = zip(ours, theirs, strict=True)
  pairs = [side.turn for pair in both for side in pair]
  *times, limit = turns.take([*pairs, limit], rounds)
  sizes = [count * len(settings.sites) for count in counts]
  return sizes, times[::2], times[1::2], limit


def line(x, y) -> tuple[float, float]:
  """Fits a line by least squares and returns its slope and intercept."""
  slope, intercept = np.polyfit(x, y, 1)
  return float(slope), float(intercept)


if __name__ == "__main__":
  main()
