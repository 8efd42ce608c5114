"""Kills a run with -9 again and again, and compares what it comes to.

  pip install jaxsae
  python -m experiments.soak.kill --kills=40 --processes=2

A small sweep on the small Gemma 2, saved after every step, is run once to its
end, and once with all its processes killed at random moments and started again.
Prints what each was killed in, and whether weights, moments, counters, key,
data position, metrics and evaluation came out with the same bits. Exits with 1
if they did not.
"""

import argparse
import collections
import dataclasses
import pathlib
import random
import sys
import tempfile
import time

import jax
import numpy as np

from experiments.soak import pods
from jaxsae.data import DataConfig
from jaxsae.lm import Site
from jaxsae.train.config import (
  BucketConfig,
  EvalConfig,
  OptimConfig,
  SweepConfig,
  TrainConfig,
)

CONFIG = TrainConfig(
  workdir="",
  lm="gemma2-tiny",
  tokens=40 * 2048,
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
  whole, parts = (
    dataclasses.replace(CONFIG, workdir=str(folder / name))
    for name in ("whole", "parts")
  )
  begin = time.monotonic()
  pods.run(whole, folder / "log", processes, devices=2)
  longest = time.monotonic() - begin
  moments, phases = random.Random(seed), collections.Counter()
  for _ in range(kills):
    with pods.Pod(parts, folder / "log", processes, devices=2) as pod:
      time.sleep(moments.uniform(0, 1) * longest)
      phases[phase(parts, pod)] += 1
  pods.run(parts, folder / "log", processes, devices=2)
  differing = compare(whole, parts)
  for name, count in phases.most_common():
    print(f"killed {count:3} times {name}")
  print(f"different: {', '.join(differing) or 'nothing'}")
  return differing


def phase(config: TrainConfig, pod: pods.Pod) -> str:
  """What the run is in."""
  said, path = pod.said(), pathlib.Path(config.workdir)
  if pod.over():
    return "after its end"
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
