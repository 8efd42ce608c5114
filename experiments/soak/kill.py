"""Kills a run with -9 again and again, and compares what it comes to.

  pip install jaxsae
  python -m experiments.soak.kill --kills=40 --processes=2

A small sweep on the small Gemma 2, saved after every step, is run once to its
end, and then again and again with all its processes killed at random moments
and started anew until it is over. Prints what each was killed in, and whether
weights, moments, counters, key, data position, metrics and evaluation came out
with the same bits. Exits with 1 if they did not.
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
  workdir="",
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
  parser.add_argument("--kills", type=int, default=40)
  parser.add_argument("--processes", type=int, default=1)
  parser.add_argument("--seed", type=int, default=0)
  args = parser.parse_args()
  with tempfile.TemporaryDirectory() as folder:
    folder = pathlib.Path(folder)
    differing = soak(folder, args.kills, args.processes, args.seed)
  sys.exit(1 if differing else 0)


def soak(folder, kills: int, processes: int, seed: int) -> list[str]:
  """The names of what came out otherwise."""
  whole = dataclasses.replace(CONFIG, workdir=str(folder / "whole"))
  again = dataclasses.replace(CONFIG, workdir=str(folder / "again"))
  pods.run(whole, folder / "log", processes, devices=2)
  begin = time.monotonic()  # from here on nothing needs compiling
  pods.run(again, folder / "log", processes, devices=2)
  longest = time.monotonic() - begin
  moments, phases, differing = random.Random(seed), collections.Counter(), []
  runs = 0
  while phases.total() < kills:
    runs += 1
    parts = dataclasses.replace(CONFIG, workdir=str(folder / f"parts{runs}"))
    draw = lambda: moments.uniform(0, longest)
    killed = kill_until_over(parts, folder / "log", processes, draw)
    found = compare(whole, parts)
    print(
      f"run {runs}: killed {killed.total()} times;"
      f" different: {', '.join(found) or 'nothing'}",
      flush=True,  # whoever stops the soak has what was found until then
    )
    phases += killed
    differing += found
  for name, count in phases.most_common():
    print(f"killed {count:3} times {name}")
  print(f"{runs} runs; different: {', '.join(differing) or 'nothing'}")
  return differing


def kill_until_over(config, log, processes, draw) -> collections.Counter:
  """In what a run was killed, and how often, before it came to its end."""
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
  """What the run is in."""
  said, path = pod.said(), pathlib.Path(config.workdir)
  if any(path.glob("checkpoints/*.orbax-checkpoint-tmp*")):
    return "during a save"
  if f"{config.steps}/{config.steps}" in said:
    return "during the evaluation"
  if "compiling" not in said:
    return "during start-up"
  return "in training" if "/s  idle" in said else "while compiling"


def compare(whole: TrainConfig, parts: TrainConfig) -> list[str]:
  """What of two runs is not the same, bit for bit."""
  states = [bits(config) for config in (whole, parts)]
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


def bits(config: TrainConfig) -> dict[str, bytes]:
  """Every array of the last checkpoint, and the data position."""
  state, position = pods.newest(config)
  state = state.replace(key=jax.random.key_data(state.key))
  paths, _ = jax.tree_util.tree_flatten_with_path(state)
  found = {jax.tree_util.keystr(p): np.asarray(x).tobytes() for p, x in paths}
  return found | {"data position": str(position).encode()}


if __name__ == "__main__":
  main()
