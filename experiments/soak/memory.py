"""Trains for 10,000 toy steps and watches how large the process is.

  python -m experiments.soak.memory

The run is as any other, in a process of its own: every step is logged, every
hundredth saved, and replicas compared where there are any. Prints its resident
size every 1,000 steps, and exits with status 1 if it has grown by more than
24 MB since step 2,000.
"""

import json
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

import psutil

from jaxsae import overrides, train
from jaxsae.data import DataConfig
from jaxsae.lm import Site

EVERY, LIMIT = 1000, 24.0  # steps, MB
WARM = 2  # sizes before those that count
CONFIG = train.TrainConfig(
  data=DataConfig(context=32),
  sae=train.SweepConfig(
    sites=(Site("resid", 1),),
    widths=(64,),
    penalty="quadratic",
    target_l0=(4.0, 8.0),
    sparsity_coefficient=(0.05,),
  ),
  bucket=train.BucketConfig(microbatches=1, rows=8, update_tokens=128),
  tokens=10_000 * 256,
  check_replicas_every=100,
)
RUN = """
import json, sys
from jaxsae import overrides, train
config = overrides.from_json(train.TrainConfig, json.load(open(sys.argv[1])))
train.train(config)
"""


def main(config=CONFIG) -> None:
  with tempfile.TemporaryDirectory() as folder:
    told = []
    for step, size in sizes(config, pathlib.Path(folder)):
      print(f"step {step:6,}  {size:6.1f} MB", flush=True)
      told.append(size)
  grown = told[-1] - told[WARM - 1]
  print(f"grew by {grown:.1f} MB after warm-up; {LIMIT:g} MB are allowed")
  sys.exit(grown > LIMIT)


def sizes(
  config: train.TrainConfig,
  folder: pathlib.Path,
  every: int = EVERY,
  script: str = RUN,
) -> Iterator[tuple[int, float]]:
  """Every so many steps: the step, and the resident size of the run in MB.

  Args:
    config: the run's, but for its folder.
    folder: an empty one, for all of it.
    every: so many steps.
    script: what trains, given the path of the configuration.
  """
  data = overrides.to_json(config) | {"workdir": str(folder / "run")}
  (folder / "config.json").write_text(json.dumps(data))
  command = [sys.executable, "-c", script, str(folder / "config.json")]
  with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
    due = every
    for step in steps(process, folder / "run" / "metrics.jsonl"):
      if step >= due:
        yield step, psutil.Process(process.pid).memory_info().rss / 2**20
        due += every
  if process.returncode:
    sys.exit(f"error: the run ended with status {process.returncode}")


def steps(process: subprocess.Popen, file: pathlib.Path) -> Iterator[int]:
  """The steps of the lines of a file, as they come."""
  while not file.exists() and process.poll() is None:
    time.sleep(0.1)
  with file.open() as lines:
    while process.poll() is None:
      line = lines.readline()
      if line.endswith("\n"):
        yield json.loads(line)["step"]
      else:
        time.sleep(0.05)


if __name__ == "__main__":
  main()
