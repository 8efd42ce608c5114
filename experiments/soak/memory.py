"""Trains for 10,000 toy steps and watches how large the process is.

  python -m experiments.soak.memory

The run is as any other, in a process of its own: every step is logged, every
hundredth saved, and replicas compared where there are any. Prints its resident
size every 1,000 steps, and apart from it what of the mapped text has been read
so far, which the system takes back when it must. Exits with status 1 if the
former has grown by more than 24 MB since step 2,000.
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
    for step, own, mapped in sizes(config, pathlib.Path(folder)):
      print(
        f"step {step:6,}  {own:6.1f} MB  files {mapped:6.1f} MB", flush=True
      )
      told.append(own)
  grown = told[-1] - told[WARM - 1]
  print(f"grew by {grown:.1f} MB after warm-up; {LIMIT:g} MB are allowed")
  sys.exit(grown > LIMIT)


def sizes(
  config: train.TrainConfig,
  folder: pathlib.Path,
  every: int = EVERY,
  script: str = RUN,
) -> Iterator[tuple[int, float, float]]:
  """Every so many steps: the step, what is resident in MB, and mapped files.

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
        yield step, *resident(process.pid)
        due += every
  if process.returncode:
    sys.exit(f"error: the run ended with status {process.returncode}")


def resident(pid: int) -> tuple[float, float]:
  """MB of a process in memory: its own, and of files, shared as they are."""
  size = psutil.Process(pid).memory_info()
  return (size.rss - size.shared) / 2**20, size.shared / 2**20


def steps(process: subprocess.Popen, file: pathlib.Path) -> Iterator[int]:
  """The steps of the lines of a file, as they come."""
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
        time.sleep(0.05)  # so far, or half of a line


if __name__ == "__main__":
  main()
