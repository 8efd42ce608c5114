"""Peak memory of an export, in multiples of one autoencoder's size.

  python -m experiments.benchmarks.export_memory [--width=1048576] [--members=3]

Makes the folder of a run of one stack at `gemma2-tiny`'s resid.3, with random
weights, and exports it in a process of its own. Prints the memory which that
process took beyond that of one that only imports the packages.
"""

import argparse
import json
import pathlib
import resource
import subprocess
import sys
import tempfile

import jax

from jaxsae import mesh as meshes
from jaxsae import overrides, runs
from jaxsae.lm import Taps
from jaxsae.train import state as states
from jaxsae.train.checkpoint.checkpoints import Checkpoints
from jaxsae.train.config.run import TrainConfig
from jaxsae.train.config.sweep import SweepConfig

SITE = Taps.parse("resid.3")
D = 128  # the site's width


def main():
  arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  arguments.add_argument("--width", type=int, default=2**20)
  arguments.add_argument("--members", type=int, default=3)
  given = arguments.parse_args()
  one = 4 * (2 * D * given.width + 2 * given.width + D)
  with tempfile.TemporaryDirectory() as folder:
    call("make", folder, given.width, given.members)
    idle, peak = call("nothing", folder), call("export", folder)
  print(
    f"{given.members} autoencoders of {one / 1e9:.2f} GB each; exporting them"
    f" took {(peak - idle) / 1e9:.2f} GB at its peak, {(peak - idle) / one:.2f}"
    " times one of them"
  )


def call(action: str, *arguments) -> int:
  """Runs one of the functions below in a process; returns its peak memory."""
  script = (
    f"from {__spec__.name} import {action}, peak;"
    f" {action}(*{arguments!r}); print(peak())"
  )
  done = subprocess.run(
    [sys.executable, "-c", script],
    stdout=subprocess.PIPE,
    text=True,
    check=True,
  )
  return int(done.stdout.split()[-1])


def peak() -> int:
  """Returns the most bytes that this process held in memory."""
  return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def nothing(folder: str) -> None:
  """Starts JAX and does nothing."""
  del folder
  jax.device_put(0.0)


def make(folder: str, width: int, members: int) -> None:
  """Makes the folder of a run that has one checkpoint and no text."""
  path = pathlib.Path(folder, "run")
  sweep = SweepConfig(
    sites=(SITE,), widths=(width,), seeds=tuple(range(members))
  )
  config = TrainConfig(workdir=str(path), sae=sweep).fitted(1)
  mesh = meshes.make(config.mesh)
  widths, scales = {SITE.site: D}, {SITE.site: 1.0}
  state = states.init(config.stacks, 0, widths, scales)
  state = jax.device_put(state, states.sharding(state, mesh))
  checkpoints = Checkpoints(path / "checkpoints", keep=1)
  checkpoints.save(state, {})
  checkpoints.close()
  (path / "config.json").write_text(json.dumps(overrides.to_json(config)))
  figures = {f"{name}/l0": 1.0 for name in config.stacks[0].names}
  (path / "metrics.jsonl").write_text(json.dumps({"step": 0} | figures) + "\n")


def export(folder: str) -> None:
  """Exports the run."""
  path = pathlib.Path(folder)
  runs.export(runs.open_run(path / "run"), "gemma_scope", path / "out")


if __name__ == "__main__":
  main()
