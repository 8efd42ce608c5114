"""Real processes that train, alone or as a pod on this machine."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np

from jaxsae import overrides
from jaxsae.train.config import TrainConfig

ROOT = pathlib.Path(__file__).parents[2]

# What an experiment file is, but for where its configuration comes from.
TRAIN = """
import json, os, sys
from jaxsae import overrides, pod, train
from jaxsae.train.config import TrainConfig
pod.HEARTBEAT = int(os.environ.get("TEST_HEARTBEAT", "30"))
config = overrides.from_json(TrainConfig, json.load(open(os.environ["CONFIG"])))
train.main(config)
"""


class Pod:
  """`count` processes of `devices` devices each that run one script."""

  def __init__(self, config: TrainConfig, folder, count, devices, script=TRAIN):
    self._folder = pathlib.Path(folder)
    self._folder.mkdir(parents=True, exist_ok=True)
    file = self._folder / "config.json"
    file.write_text(json.dumps(overrides.to_json(config)))
    environment = os.environ | {
      "CONFIG": str(file),
      "PYTHONPATH": str(ROOT),
      "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
    }
    self.processes = [
      self._start(script, i, environment | _place(count, i, port))
      for port in [_free_port()]
      for i in range(count)
    ]

  def _start(self, script, index, environment):
    with open(self._folder / f"{index}.log", "wb") as log:
      return subprocess.Popen(
        [sys.executable, "-c", script],
        env=environment,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
      )

  def __enter__(self):
    return self

  def __exit__(self, *_):
    self.kill()

  def kill(self):
    """With -9, and whatever they started."""
    for process in self.processes:
      if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
      process.wait()

  def wait(self, timeout=240) -> list[int]:
    """The exit statuses."""
    end = time.monotonic() + timeout
    return [p.wait(max(end - time.monotonic(), 0.1)) for p in self.processes]

  def said(self, index=0) -> str:
    return (self._folder / f"{index}.log").read_text(errors="replace")


def run(config, folder, count=1, devices=8, script=TRAIN) -> None:
  """To its end, which must be a good one."""
  with Pod(config, folder, count, devices, script) as pod:
    statuses = pod.wait()
    assert statuses == [0] * count, "\n".join(map(pod.said, range(count)))


def metrics(config) -> list[dict]:
  """What metrics.jsonl says, but for times."""
  text = (pathlib.Path(config.workdir) / "metrics.jsonl").read_text()
  times = ("tokens_per_second", "idle")
  found = [json.loads(line) for line in text.splitlines()]
  return [{k: v for k, v in x.items() if k not in times} for x in found]


def wait_for_step(config, step, pod, timeout=180) -> None:
  """Until the log has that step."""
  file = pathlib.Path(config.workdir) / "metrics.jsonl"
  end = time.monotonic() + timeout
  while time.monotonic() < end:
    if file.exists() and len(file.read_text().splitlines()) >= step:
      return
    assert all(p.poll() is None for p in pod.processes), pod.said()
    time.sleep(0.02)
  raise AssertionError(f"step {step} never came\n{pod.said()}")


def assert_same(a, b, **tolerance):
  """Bit for bit, or to a tolerance."""
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
      x, y = jax.random.key_data(x), jax.random.key_data(y)
    if tolerance:
      np.testing.assert_allclose(np.asarray(x), np.asarray(y), **tolerance)
    else:
      np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


def _place(count, index, port) -> dict[str, str]:
  if count == 1:
    return {}
  return {
    "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
    "JAX_NUM_PROCESSES": str(count),
    "JAX_PROCESS_ID": str(index),
  }


def _free_port() -> int:
  with socket.socket() as listening:
    listening.bind(("127.0.0.1", 0))
    return listening.getsockname()[1]
