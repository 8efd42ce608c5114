"""What runs on a worker, asked directly."""

import ast
import json
import os
import pathlib
import sys

import pytest

from launch.host import host
from tests.launch.conftest import script


@pytest.fixture
def run(tmp_path):
  """A run's folder with checkpoints of two steps and metrics of a third."""
  folder = tmp_path / "run"
  for name in ("3", "12", "13.partial"):
    (folder / "checkpoints" / name).mkdir(parents=True)
  lines = [json.dumps({"step": step}) for step in (13, 14)]
  (folder / "metrics.jsonl").write_text("\n".join(lines) + '\n{"st')
  return folder


def test_the_newest_step_is_in_the_metrics_or_the_checkpoints(run):
  job = {"workdir": str(run)}
  assert host.newest_step(job) == 14
  (run / "metrics.jsonl").unlink()
  assert host.newest_step(job) == 12


def test_a_remote_folder_is_read_with_the_python_of_the_run(run, tmp_path):
  """The stand-in reads a local folder in place of the bucket."""
  python = tmp_path / "python"
  script(python, f'#!/bin/sh\nexec {sys.executable} -c "$2" {run}\n')
  job = {"workdir": "gs://bucket/run", "argv": [str(python)]}
  assert host.newest_step(job) == 12
  script(python, f'#!/bin/sh\nexec {sys.executable} -c "$2" {tmp_path}\n')
  assert host.newest_step(job) is None
  script(python, "#!/bin/sh\nexit 1\n")
  assert host.newest_step(job) is None


@pytest.mark.parametrize("text", ["", "\0\0\n", "{}\n", "[]\n"])
def test_metrics_that_cannot_be_read_are_no_step(run, text):
  (run / "metrics.jsonl").write_text(text)
  assert host.newest_step({"workdir": str(run)}) in (None, 12)


def test_a_process_is_known_by_its_birth(tmp_path):
  mine = [os.getpid(), host.start_time(os.getpid())]
  file = tmp_path / "process.json"
  host.write(file, [mine])
  assert host.is_running(tmp_path)
  host.write(file, [[mine[0], mine[1] - 1]])  # another had the number before
  assert not host.is_running(tmp_path)


@pytest.mark.parametrize(
  "endpoints", ["10.0.0.1,10.0.0.2", "a:1:10.0.0.1,b:2:10.0.0.2"]
)
def test_hosts_of_a_group_are_told_who_they_are(monkeypatch, endpoints):
  monkeypatch.delenv("JAX_PROCESS_ID", raising=False)
  known = {"worker-id": "1", "worker-network-endpoints": endpoints}
  monkeypatch.setattr(host, "metadata_value", lambda key: known.get(key, ""))
  assert host.pod_variables() == {
    "JAX_COORDINATOR_ADDRESS": "10.0.0.1:8482",
    "JAX_NUM_PROCESSES": "2",
    "JAX_PROCESS_ID": "1",
  }
  known["agent-worker-number"] = "1"  # JAX sees it by itself
  assert host.pod_variables() == {}


def test_it_is_written_for_the_python_that_workers_have():
  """Ubuntu 20.04's; and it needs nothing that is installed."""
  source = pathlib.Path(host.__file__).read_text()
  tree = ast.parse(source, feature_version=(3, 8))
  imported = [
    name.name.split(".")[0]
    for node in ast.walk(tree)
    if isinstance(node, ast.Import)
    for name in node.names
  ]
  assert set(imported) <= sys.stdlib_module_names
  assert not [x for x in ast.walk(tree) if isinstance(x, ast.ImportFrom)]
