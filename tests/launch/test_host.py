"""The script on workers, called directly."""

import ast
import json
import os
import pathlib
import sys
import types

import pytest

from launch.host import host, prepare
from tests.launch.conftest import script

STANDARD = sys.stdlib_module_names


@pytest.fixture
def run(tmp_path):
  """Makes a run's folder, with checkpoints of two steps, metrics of a third."""
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
  """The stand-in reads a local folder instead of the bucket."""
  python = tmp_path / "python"
  script(python, f'#!/bin/sh\nexec {sys.executable} -c "$2" {run}\n')
  job = {"workdir": "gs://bucket/run", "argv": [str(python)]}
  assert host.newest_step(job) == 12
  script(python, f'#!/bin/sh\nexec {sys.executable} -c "$2" {tmp_path}\n')
  assert host.newest_step(job) is None
  script(python, "#!/bin/sh\nexit 1\n")
  assert host.newest_step(job) is None


@pytest.mark.parametrize("text", ["", "\0\0\n", "{}\n", "[]\n"])
def test_unreadable_metrics_give_no_step(run, text):
  (run / "metrics.jsonl").write_text(text)
  assert host.newest_step({"workdir": str(run)}) in (None, 12)


def test_a_process_is_identified_by_its_start_time(tmp_path):
  mine = [os.getpid(), host.start_time(os.getpid())]
  file = tmp_path / "process.json"
  host.write(file, [mine])
  assert host.is_running(tmp_path)
  host.write(file, [[mine[0], mine[1] - 1]])  # another had the number before
  assert not host.is_running(tmp_path)


@pytest.mark.parametrize(
  "endpoints", ["10.0.0.1,10.0.0.2", "a:1:10.0.0.1,b:2:10.0.0.2"]
)
def test_hosts_of_a_group_get_the_pods_variables(monkeypatch, endpoints):
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


@pytest.mark.parametrize(
  "module, beside", [(host, {"prepare", "launch.host"}), (prepare, set())]
)
def test_the_host_scripts_run_on_the_python_of_workers(module, beside):
  """They need Ubuntu 20.04's Python and no package."""
  source = pathlib.Path(module.__file__).read_text()
  tree = ast.parse(source, feature_version=(3, 8))
  imported = set()
  for node in ast.walk(tree):
    if isinstance(node, ast.Import):
      imported |= {name.name for name in node.names}
    if isinstance(node, ast.ImportFrom):
      imported.add(node.module)
  imported -= {x for x in imported if x.split(".")[0] in STANDARD}
  assert imported == beside


def device(folder, number, vendor, kind):
  path = folder / str(number)
  path.mkdir(parents=True)
  (path / "vendor").write_text(f"{vendor}\n")
  (path / "device").write_text(f"{kind}\n")


def test_chips_are_counted_without_using_them(tmp_path, monkeypatch):
  monkeypatch.setattr(prepare, "PCI", tmp_path)
  device(tmp_path, 0, "0x1ae0", "0x0062")
  device(tmp_path, 1, "0x1ae0", "0x0042")  # Google's network card
  device(tmp_path, 2, "0x8086", "0x0062")
  assert prepare.missing_chips(1) == []
  assert prepare.missing_chips(4) == ["only 1 of 4 TPU chips are attached"]


def test_a_full_disk_is_a_problem(tmp_path, monkeypatch):
  (tmp_path / ".venv").mkdir()
  job = {"tree": str(tmp_path), "argv": ["python", "x.py"]}
  on_cpu = {"JAX_PLATFORMS": "cpu"}
  assert prepare.check(job, on_cpu, chips=4) == ([], None)
  usage = types.SimpleNamespace(free=10**9)
  monkeypatch.setattr(prepare.shutil, "disk_usage", lambda path: usage)
  (problem,), _ = prepare.check(job, on_cpu, chips=4)
  assert problem.startswith(f"only 1.0 GB of {tmp_path} are free")


def test_a_machine_that_was_not_set_up_is_a_problem(tmp_path):
  job = {"tree": str(tmp_path / "tree"), "argv": ["python", "x.py"]}
  (problem,), _ = prepare.check(job, {}, chips=4)
  assert "launch setup" in problem
