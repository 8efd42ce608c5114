"""Kills a run with SIGKILL at random, and checks that its results are the same.

  pip install jaxsae
  python -m experiments.soak.kill --kills=40 --processes=2

Trains a small sweep on the small Gemma 2, with a checkpoint after every step,
once without interruption, and then repeatedly with all processes killed at
random moments and restarted until the run is complete. Prints what the run was
doing when it was killed, and whether weights, moments, counters, key, data
position, metrics and evaluation are the same bit for bit. Exits with status 1
if they are not.
"""

import argparse
import collections
import contextlib
import dataclasses
import pathlib
import random
import subprocess
import sys
import tempfile
import time

import jax
import numpy as np

from jaxsae.data import DataConfig
from jaxsae.lm import Site
from jaxsae.train.config.run import (
  BucketConfig,
  EvalConfig,
  OptimConfig,
  SweepConfig,
  TrainConfig,
)
from tests import pods

CONFIG = TrainConfig(
  workdir="runs/soak",  # of each run its own
  lm="gemma2-tiny",
  tokens=300 * 2048,
  data=DataConfig(context=64),
  sae=SweepConfig(
    sites=(Site("resid", 1),),
    widths=(256,),
    penalty="quadratic",
    target_l0=(8.0, 16.0),
    sparsity_coefficient=(0.05,),
    bandwidth=0.05,
    initial_threshold=0.05,
    optim=OptimConfig(lr=2e-3, lr_warmup=10, sparsity_warmup=20),
  ),
  bucket=BucketConfig(microbatches=4, rows=8, update_tokens=256),
  eval=EvalConfig(batch=8, batches=4, loss_batches=2),
  checkpoint_every=1,
)


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument(
    "--kills", type=int, default=40, help="how often to kill, at least"
  )
  parser.add_argument(
    "--processes", type=int, default=1, help="number of processes of the run"
  )
  parser.add_argument(
    "--seed", type=int, default=0, help="of the random moments"
  )
  args = parser.parse_args()
  with tempfile.TemporaryDirectory() as folder:
    folder = pathlib.Path(folder)
    differing = soak(folder, args.kills, args.processes, args.seed)
  sys.exit(1 if differing else 0)


def soak(folder, kills: int, processes: int, seed: int) -> list[str]:
  """Kills and compares runs; returns the names of all results that differ."""
  whole = dataclasses.replace(CONFIG, workdir=str(folder / "whole"))
  again = dataclasses.replace(CONFIG, workdir=str(folder / "again"))
  pods.run(whole, folder / "log", processes, devices=2)
  begin = time.monotonic()  # the second run finds everything compiled
  pods.run(again, folder / "log", processes, devices=2)
  longest = time.monotonic() - begin
  moments, phases, differing = random.Random(seed), collections.Counter(), []
  runs = 0
  while phases.total() < kills:
    runs += 1
    parts = dataclasses.replace(CONFIG, workdir=str(folder / f"parts{runs}"))
    draw = lambda: moments.uniform(0, longest)
    killed = kill_until_done(parts, folder / "log", processes, draw)
    found = compare(whole, parts)
    print(
      f"run {runs}: killed {killed.total()} times;"
      f" different: {', '.join(found) or 'nothing'}",
      flush=True,  # so that a soak that is stopped has shown its findings
    )
    phases += killed
    differing += found
  for name, count in phases.most_common():
    print(f"killed {count:3} times {name}")
  print(f"{runs} runs; different: {', '.join(differing) or 'nothing'}")
  return differing


def kill_until_done(config, log, processes, draw) -> collections.Counter:
  """Kills a run until it is complete; returns how often in each phase."""
  phases = collections.Counter()
  while True:
    with pods.Pod(config, log, processes, devices=2) as pod:
      with contextlib.suppress(subprocess.TimeoutExpired):
        statuses = pod.wait(draw())
        assert statuses == [0] * processes, pod.said()
        return phases
      assert all(p.poll() in (None, 0) for p in pod.processes), pod.said()
      phases[phase(config, pod)] += 1


def phase(config: TrainConfig, pod: pods.Pod) -> str:
  """Returns the phase that a killed run was in."""
  said, path = pod.said(), pathlib.Path(config.workdir)
  if any(path.glob("checkpoints/*.orbax-checkpoint-tmp*")):
    return "during a save"
  if f"{config.steps}/{config.steps}" in said:
    return "during the evaluation"
  if "compiling" not in said:
    return "during start-up"
  return "in training" if "/s  idle" in said else "while compiling"


def compare(whole: TrainConfig, parts: TrainConfig) -> list[str]:
  """Returns the names of the results of two runs that differ in any bit."""
  states = [results(config) for config in (whole, parts)]
  differing = [
    name
    for name in states[0].keys() | states[1].keys()
    if states[0].get(name) != states[1].get(name)
  ]
  if pods.metrics(whole) != pods.metrics(parts):
    differing.append("metrics.jsonl")
  records = [
    (pathlib.Path(c.workdir) / "eval" / f"{c.steps}.json").read_text()
    for c in (whole, parts)
  ]
  return differing + ["evaluation"] * (records[0] != records[1])


def results(config: TrainConfig) -> dict[str, bytes]:
  """Returns the bytes of the last checkpoint's arrays and of its position."""
  state, position = pods.newest(config)
  state = state.replace(key=jax.random.key_data(state.key))
  paths, _ = jax.tree_util.tree_flatten_with_path(state)
  found = {jax.tree_util.keystr(p): np.asarray(x).tobytes() for p, x in paths}
  return found | {"data position": str(position).encode()}


if __name__ == "__main__":
  main()
