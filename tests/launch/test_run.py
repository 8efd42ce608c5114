"""Set-up, run, logs and stop, with processes as workers."""

import json
import pathlib

import pytest

EXPERIMENT = "experiments/count.py"


def wait(launch, *words, tries=200):
  import time

  for _ in range(tries):
    status, out, err = launch("status")
    if all(word in out for word in words):
      return out
    time.sleep(0.05)
  raise AssertionError(out + err)


def test_a_run_goes_from_nothing_to_its_end(made, launch, tmp_path, cloud):
  name = made()
  run = f"--workdir={tmp_path / 'run'}"
  status, out, err = launch("run", EXPERIMENT, run, "--steps=3")
  assert status == 0, err
  assert "runs on a" in out
  status, out, err = launch("watch", "--poll=0.05")
  assert status == 0, out + err
  assert "worker 0" in out and "done at step 2" in out
  status, out, _ = launch("logs", "--worker=1")
  assert "worker 1" in out and "worker 0" not in out
  status, out, _ = launch("delete", name)
  assert status == 0
  with cloud.open() as data:
    assert data["nodes"] == {}
