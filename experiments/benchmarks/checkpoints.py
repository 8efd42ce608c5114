"""What it costs to be safe: checkpoints, and starting again.

  python -m experiments.benchmarks.checkpoints

Six autoencoders of the quickstart's shape on this machine's CPU. A turn is four
steps of 32,768 tokens, as they are, or with a checkpoint saved before them and
on the disk at their end; the difference is what one checkpoint costs, waiting
and work beside the steps together. The limit is 3 % with one in 100 steps.

A start is a process of its own, timed by itself from where the configuration
is read to the end of the first step: `cold` beside an empty folder, `again`
beside the first, whose compiled step it finds.
"""

import dataclasses
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile

from experiments.benchmarks import table, turns
from experiments.benchmarks.ours import Training, configure
from experiments.benchmarks.settings import Settings
from jaxsae import train
from jaxsae.lm import Site
from jaxsae.train.checkpoint.checkpoints import Checkpoints

SETTINGS = Settings(
  sites=(Site("resid", 3), Site("mlp", 3)),
  targets=(12.0, 24.0, 48.0),
  rows=32,
  microbatches=4,
)
STEPS, EVERY, STARTS = 4, 100, 3
LINE = re.compile(r"first step after ([0-9.]+) s, of which ([0-9.]+) s to")


def main(settings=SETTINGS, rounds=turns.TURNS, starts=STARTS):
  with tempfile.TemporaryDirectory() as folder:
    overhead(settings, pathlib.Path(folder), rounds)
  print()
  start(starts)


def overhead(settings, folder, rounds):
  """The table's only line, and the share."""
  training = Training(settings)
  checkpoints = Checkpoints(folder / "checkpoints", keep=2)

  def plain():
    for _ in range(STEPS):
      training.turn()

  def saving():
    training.save(checkpoints)
    plain()
    checkpoints.wait()

  without, with_ = turns.take((plain, saving), rounds)
  checkpoints.close()
  step = statistics.median(without) / STEPS
  pairs = zip(with_, without, strict=True)
  cost = statistics.median(a - b for a, b in pairs)
  table.head("ms a step", "ms a checkpoint", f"share, one in {EVERY} steps")
  share = cost / (EVERY * step)
  table.row(f"{1e3 * step:.0f}", f"{1e3 * cost:.0f}", f"{share:.2%}")


def start(starts):
  """The table of starts; medians."""
  table.head("start", "first step after, s", "compiling or loading, s")
  times = {"cold": [], "again": []}
  for _ in range(starts):
    with tempfile.TemporaryDirectory() as parent:
      for name, seconds in times.items():
        seconds.append(first_step(f"{parent}/{name}"))
  for name, seconds in times.items():
    row = (statistics.median(column) for column in zip(*seconds, strict=True))
    table.row(name, *(f"{x:.1f}" for x in row))


def first_step(workdir) -> tuple[float, float]:
  """Seconds to the end of it, and those that the compiler took."""
  command = f"from {__spec__.name} import one_step; one_step({workdir!r})"
  done = subprocess.run(
    [sys.executable, "-c", command],
    stdout=subprocess.PIPE,
    text=True,
    check=True,
  )
  return tuple(map(float, LINE.search(done.stdout).groups()))


def one_step(workdir) -> None:
  """A run of one bucket."""
  config = configure(SETTINGS)
  train.train(
    dataclasses.replace(config, workdir=workdir, tokens=config.bucket_tokens)
  )


if __name__ == "__main__":
  main()
