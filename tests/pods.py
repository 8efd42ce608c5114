"""Real training processes on this machine, one alone or several as a pod."""

import contextlib
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable

import jax
import numpy as np

from jaxsae import mesh as meshes
from jaxsae import overrides
from jaxsae.lm.weights import read_sizes
from jaxsae.train.checkpoint.checkpoints import Checkpoints
from jaxsae.train.config.run import TrainConfig
from jaxsae.train.monitor.lines import read_metrics
from jaxsae.train.state import TrainState, abstract_state
from tests import cpu

ROOT = pathlib.Path(__file__).parents[1]

# An experiment file that reads its configuration from a file.
EXPERIMENT = """
import json, os
from jaxsae import overrides, pod, runs, train
from jaxsae.train.config import TrainConfig
pod.HEARTBEAT = int(os.environ.get("HEARTBEAT", pod.HEARTBEAT))
config = json.load(open(os.environ["CONFIG"]))
runs.main(overrides.from_json(TrainConfig, config))
"""


class Pod:
  """Processes that run one script; a `with` block kills them at its end.

  Args:
    config: configuration of the run.
    folder: folder for the configuration and the output of each process.
    count: number of processes.
    devices: number of devices of each process.
    script: Python code; the environment variable CONFIG names the file with its
      configuration.
    heartbeat: seconds between heartbeats; see `jaxsae.pod`.
  """

  def __init__(
    self,
    config: TrainConfig,
    folder,
    count=1,
    devices=8,
    script=EXPERIMENT,
    heartbeat=30,
  ):
    self._folder = pathlib.Path(folder)
    self._folder.mkdir(parents=True, exist_ok=True)
    file = self._folder / "config.json"
    file.write_text(json.dumps(overrides.to_json(config)))
    self._environment = os.environ | {
      "CONFIG": str(file),
      "HEARTBEAT": str(heartbeat),
      "JAX_PLATFORMS": "cpu",
      "PYTHONPATH": str(ROOT),
      "TF_CPP_MIN_LOG_LEVEL": "1",  # as JAX sets it
      "XLA_FLAGS": cpu.flags(devices),
    }
    # They keep what they compile beside their run, as anybody's do: one that
    # is killed may leave half a program, which others must not find.
    self._environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    port = free_port()
    self.processes = [
      self._start(script, index, _place(count, index, port))
      for index in range(count)
    ]

  def __enter__(self):
    return self

  def __exit__(self, *_):
    self.kill()

  def kill(self) -> None:
    """Kills all processes with SIGKILL and waits for their end."""
    for process in self.processes:
      with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
      process.wait()

  def wait(self, timeout=240) -> list[int]:
    """Waits until all processes have ended and returns their exit statuses."""
    end = time.monotonic() + timeout
    return [p.wait(max(end - time.monotonic(), 0.1)) for p in self.processes]

  def over(self) -> bool:
    """Returns whether at least one process has ended."""
    return any(process.poll() is not None for process in self.processes)

  def said(self, index=0) -> str:
    """Returns what one process has printed so far."""
    return (self._folder / f"{index}.log").read_text(errors="replace")

  def _start(self, script, index, place):
    with open(self._folder / f"{index}.log", "wb") as log:
      return subprocess.Popen(
        [sys.executable, "-c", script],
        env=self._environment | place,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
      )


def run(config: TrainConfig, folder, count=1, devices=8, **options) -> Pod:
  """Runs a pod to its end; asserts that all processes succeed."""
  with Pod(config, folder, count, devices, **options) as pod:
    statuses = pod.wait()
    assert statuses == [0] * count, "\n".join(map(pod.said, range(count)))
  return pod


def newest(config: TrainConfig) -> tuple[TrainState, dict]:
  """Restores the newest checkpoint: its state and its data position."""
  mesh = meshes.make(config.mesh)
  abstract = abstract_state(config, read_sizes(config.lm), mesh)
  folder = pathlib.Path(config.workdir) / "checkpoints"
  checkpoints = Checkpoints(folder, keep=None)
  found = checkpoints.restore(abstract)
  checkpoints.close()
  return found


def metrics(config: TrainConfig) -> list[dict]:
  """Reads metrics.jsonl, without the figures that depend on time."""
  return without_times(read_metrics(config.workdir))


def without_times(lines: Iterable[dict]) -> list[dict]:
  """Leaves out the figures that depend on time."""
  times = ("tokens_per_second", "idle")
  return [{k: v for k, v in x.items() if k not in times} for x in lines]


def wait_for_step(config: TrainConfig, step: int, pod: Pod, timeout=180):
  """Waits until metrics.jsonl has the line of a step."""
  end = time.monotonic() + timeout
  file = pathlib.Path(config.workdir) / "metrics.jsonl"
  while not file.exists() or file.read_text().count("\n") < step:
    assert not pod.over() and time.monotonic() < end, pod.said()
    time.sleep(0.02)


def assert_same(a, b, **tolerance) -> None:
  """Asserts that trees of arrays are equal, or close if given a tolerance."""
  for x, y in zip(_plain(a), _plain(b), strict=True):
    if tolerance:
      np.testing.assert_allclose(x, y, **tolerance)
    else:
      np.testing.assert_array_equal(x, y)


def _plain(tree) -> list[np.ndarray]:
  """Returns the leaves of a tree as NumPy arrays; of keys, their data."""
  return [
    np.asarray(jax.random.key_data(x) if _is_key(x) else x)
    for x in jax.tree.leaves(tree)
  ]


def _is_key(x) -> bool:
  return isinstance(x, jax.Array) and jax.dtypes.issubdtype(
    x.dtype, jax.dtypes.prng_key
  )


def _place(count, index, port) -> dict[str, str]:
  """Returns the environment variables that `jaxsae.pod.join` reads."""
  if count == 1:
    return {}
  return {
    "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
    "JAX_NUM_PROCESSES": str(count),
    "JAX_PROCESS_ID": str(index),
  }


def free_port() -> int:
  """Returns a port of this machine on which nobody listens."""
  with socket.socket() as listening:
    listening.bind(("127.0.0.1", 0))
    return listening.getsockname()[1]
