"""Overhead of checkpoints, and time to start a run.

  python -m experiments.benchmarks.checkpoints

Six autoencoders of the quickstart's shape on this machine's CPU. A turn is four
steps of 32,768 tokens. Every other turn saves a checkpoint before its first
step and waits at its end until the checkpoint is on disk; the difference is the
overhead of one checkpoint, of waiting and of work beside the steps. It should
be at most 3 % with one checkpoint per 100 steps.

A start is a process that measures the time from reading its configuration to
the end of its first step: `cold` has to compile the step, `again` finds the one
that `cold` compiled.
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
  """Prints the overhead of checkpoints, a table of one line."""
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
  table.head(
    "ms per step", "ms per checkpoint", f"share, one per {EVERY} steps"
  )
  share = cost / (EVERY * step)
  table.row(f"{1e3 * step:.0f}", f"{1e3 * cost:.0f}", f"{share:.2%}")


def start(starts):
  """Prints the table of starts, with medians."""
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
  """Returns seconds to the end of the first step, and those of compiling."""
  command = f"from {__spec__.name} import one_step; one_step({workdir!r})"
  done = subprocess.run(
    [sys.executable, "-c", command],
    stdout=subprocess.PIPE,
    text=True,
    check=True,
  )
  return tuple(map(float, LINE.search(done.stdout).groups()))


def one_step(workdir) -> None:
  """Trains on one bucket."""
  config = configure(SETTINGS)
  train.train(
    dataclasses.replace(config, workdir=workdir, tokens=config.bucket_tokens)
  )


if __name__ == "__main__":
  main()
