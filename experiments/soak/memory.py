"""Trains for 10,000 toy steps and checks that the process does not grow.

  python -m experiments.soak.memory

The run has its own process and does what every run does: it logs every step,
saves every hundredth, and compares replicas if there are any. Prints the memory
of the process every 1,000 steps, and separately the part of the memory-mapped
text that is resident, which the system can reclaim at any time. Exits with
status 1 if the former grows by more than 24 MB after step 2,000.
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
WARMUP = 2  # sizes that are measured before growth counts
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
    own_sizes = []
    for step, own, mapped in sizes(config, pathlib.Path(folder)):
      print(
        f"step {step:6,}  {own:6.1f} MB  files {mapped:6.1f} MB", flush=True
      )
      own_sizes.append(own)
  grown = own_sizes[-1] - own_sizes[WARMUP - 1]
  print(f"grew by {grown:.1f} MB after warm-up; {LIMIT:g} MB are allowed")
  sys.exit(grown > LIMIT)


def sizes(
  config: train.TrainConfig,
  folder: pathlib.Path,
  every: int = EVERY,
  script: str = RUN,
) -> Iterator[tuple[int, float, float]]:
  """Yields the step, MB of the process and MB of files, every `every` steps.

  Args:
    config: the run's configuration; its `workdir` is replaced.
    folder: an empty folder for all files.
    every: number of steps between two sizes.
    script: a Python script that trains, given the path of a configuration.
  """
  data = overrides.to_json(config) | {"workdir": str(folder / "run")}
  (folder / "config.json").write_text(json.dumps(data))
  command = [sys.executable, "-c", script, str(folder / "config.json")]
  with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
    due = every
    for step in steps(process, folder / "run" / "metrics.jsonl"):
      if step >= due:
        yield step, *resident(process.pid)
        due += every
  if process.returncode:
    sys.exit(f"error: the run ended with status {process.returncode}")


def resident(pid: int) -> tuple[float, float]:
  """Returns MB that a process has in memory: its own, and those of files."""
  size = psutil.Process(pid).memory_info()
  return (size.rss - size.shared) / 2**20, size.shared / 2**20


def steps(process: subprocess.Popen, file: pathlib.Path) -> Iterator[int]:
  """Yields the step of each line of a file, as soon as it is written."""
  while not file.exists() and process.poll() is None:
    time.sleep(0.1)
  line = ""
  with file.open() as lines:
    while process.poll() is None:
      line += lines.readline()
      if line.endswith("\n"):
        yield json.loads(line)["step"]
        line = ""
      else:
        time.sleep(0.05)  # no line, or only a part of one, has been written


if __name__ == "__main__":
  main()
