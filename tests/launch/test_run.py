"""Set-up, run, logs and stop, with processes as workers."""

import json
import os
import shutil
import stat
import subprocess
import time

import pytest

from launch.ledger import Ledger
from tests.launch.conftest import TWO, commit

EXPERIMENT = "experiments/count.py"
HOSTILE = ["; $(touch x) `touch x`", "' \" \\", "a\nb", "*", "-rf", "é #"]


def wait(launch, word, tries=200):
  """Until `status` says so."""
  for _ in range(tries):
    _, out, err = launch("status")
    if word in out:
      return out
    time.sleep(0.05)
  raise AssertionError(out + err)


@pytest.fixture
def run(launch, tmp_path):
  """`run("--steps=3")`: starts it; its folder."""

  def start(*flags, env=()):
    folder = tmp_path / "run"
    status, _, err = launch(
      "run", *env, EXPERIMENT, f"--workdir={folder}", *flags
    )
    assert status == 0, err
    return folder

  return start


def test_a_run_goes_from_nothing_to_its_end(made, run, launch, cloud):
  made("a", TWO)
  run("--steps=3")
  status, out, err = launch("watch", "--poll=0.05")
  assert status == 0, out + err
  assert "worker 0" in out and "worker 1" not in out
  assert "done at step 2" in out
  _, out, _ = launch("logs", "--worker=1")
  assert "worker 1" in out and "worker 0" not in out
  assert launch("delete", "a")[0] == 0
  with cloud.open() as data:
    assert data["nodes"] == {}
  status, _, err = launch("status")
  assert status == 2 and "none yet" in err


def test_it_outlives_the_session_and_is_started_once(made, run, launch):
  made()
  folder = run("--steps=100000", "--pause=0.05")
  wait(launch, "step 1")
  status, _, err = launch("run", EXPERIMENT, f"--workdir={folder}", "--steps=2")
  assert status == 2
  assert "slice 0 worker 0" in err and "launch stop a" in err
  # The one that runs is still the one that is looked at.
  assert "running" in wait(launch, "step 2")


def test_stop_leaves_a_checkpoint_and_is_not_taken_for_a_preemption(
  made, run, launch
):
  made("a", TWO)
  run("--steps=100000", "--pause=0.05", "--bad=1")
  wait(launch, "running")
  assert launch("stop")[0] == 0
  out = wait(launch, "worker 1: ended")
  assert "status 42" in out
  status, out, _ = launch("watch", "--poll=0.05")
  assert status == 42 and "stopped" in out


def test_what_is_hostile_arrives_as_it_was_typed(made, run, checkout, cloud):
  made()
  folder = run(*(f"--a{i}={x}" for i, x in enumerate(HOSTILE)))
  for _ in range(100):
    if (folder / "flags.json").exists():
      break
    time.sleep(0.05)
  flags = json.loads((folder / "flags.json").read_text())
  assert flags[1:] == [f"--a{i}={x}" for i, x in enumerate(HOSTILE)]
  assert not list(cloud.folder.rglob("x")) + list(checkout.rglob("x"))


def test_only_what_git_tracks_is_copied(made, cloud, checkout):
  (checkout / "secret.txt").write_text("sentinel")
  made()
  tree = cloud.home("a") / ".jaxsae" / "tree"
  assert (tree / EXPERIMENT).exists()
  assert not (tree / "secret.txt").exists()


def test_the_commit_and_what_differs_from_it_are_recorded(
  made, checkout, tmp_path
):
  (checkout / EXPERIMENT).write_text("print('changed')\n")
  made()
  entry = Ledger(tmp_path / "state").read("a")
  head = subprocess.check_output(
    ["git", "-C", str(checkout), "rev-parse", "HEAD"], text=True
  )
  assert entry.code["commit"] == head.strip() and entry.code["dirty"]
  diff = (tmp_path / "state" / "a" / "dirty.diff").read_text()
  assert "+print('changed')" in diff


def test_a_revision_is_copied_as_it_was(made, launch, checkout, cloud):
  (checkout / "later.txt").write_text("x")
  commit(checkout)
  made()
  tree = cloud.home("a") / ".jaxsae" / "tree"
  assert (tree / "later.txt").exists()
  assert launch("setup", "a", "--rev=HEAD~1")[0] == 0
  assert not (tree / "later.txt").exists()
  status, _, err = launch("setup", "a", "--rev=nonsense")
  assert status == 2 and "nonsense" in err and "revision" in err


def test_setting_up_twice_installs_once(made, launch, cloud):
  made()
  assert launch("setup", "a")[0] == 0
  log = (cloud.home("a") / "uv.log").read_text().splitlines()
  assert len(log) == 2 and log[0].startswith("uv venv --quiet --python 3.11")
  assert log[1].startswith("uv pip install")
  assert log[1].endswith("requirements-tpu.txt")


def test_another_lock_gets_an_environment_of_its_own(
  made, launch, cloud, checkout
):
  made()
  (checkout / "requirements-tpu.txt").write_text("jax==0.10.1\n")
  assert launch("setup", "a")[0] == 0
  venvs = list((cloud.home("a") / ".jaxsae" / "venvs").iterdir())
  assert len(venvs) == 2


def test_variables_reach_the_run_and_secrets_come_from_its_machine(
  made, run, launch, cloud, checkout
):
  (checkout / EXPERIMENT).write_text(
    "import os; print(os.environ['COLOUR'], os.environ['A_TOKEN'])\n"
  )
  made("a", TWO)
  for worker in range(2):
    file = cloud.home("a", worker) / ".jaxsae" / "env"
    file.write_text("A_TOKEN=sentinel\n")
    file.chmod(0o600)
  run(env=["--env=COLOUR=red"])
  wait(launch, "worker 1: ended, status 0")
  assert "red sentinel" in launch("logs")[1]
  assert "sentinel" not in json.dumps(cloud.calls)


def test_secrets_that_others_can_read_are_not_used(
  made, launch, cloud, tmp_path
):
  made()
  file = cloud.home("a") / ".jaxsae" / "env"
  file.write_text("A_TOKEN=sentinel\n")
  file.chmod(0o644)
  status, out, err = launch("run", EXPERIMENT, f"--workdir={tmp_path}/run")
  assert status == 2 and "chmod 600" in err and "sentinel" not in out + err


@pytest.mark.parametrize("name", ["HF_TOKEN", "aws_secret_x", "API_KEY"])
def test_a_secret_on_the_command_line_is_refused(
  made, launch, cloud, tmp_path, name
):
  made()
  before = len(cloud.calls)
  status, out, err = launch(
    "run", f"--env={name}=sentinel", EXPERIMENT, f"--workdir={tmp_path}/run"
  )
  assert status == 2 and name in err and "0600" in err
  assert "sentinel" not in out + err and len(cloud.calls) == before


def test_what_is_written_down_is_for_its_owner_alone(
  made, run, cloud, tmp_path
):
  made()
  run()
  job = next(cloud.home("a").glob(".jaxsae/runs/*/job.json"))
  for file in (tmp_path / "state" / "a.json", job):
    assert stat.S_IMODE(os.stat(file).st_mode) == 0o600


def test_with_systemd_a_run_is_a_service(made, run, launch, cloud):
  """A stand-in for sudo and systemd-run shows what they are asked."""
  made("a", TWO)
  log = cloud.folder / "sudo.log"
  tell = f'#!/bin/sh\necho "$*" >> {log}\n'
  for tool in ("sudo", "systemd-run"):
    file = cloud.folder / "bin" / tool
    # As systemd-run does: what follows its options, in another session.
    file.write_text(
      tell + 'if [ "$2" = systemd-run ]; then\n  while [ "$1" != "${1#[-s]}" ];'
      ' do shift; done\n  (setsid "$@" &)\nfi\n'
    )
    file.chmod(0o755)
  (cloud.folder / "bin" / "setsid").symlink_to(shutil.which("setsid"))
  run("--steps=2")
  wait(launch, "worker 1: ended, status 0")
  asked = log.read_text()
  assert "-n systemctl show" in asked
  assert (
    "--unit=jaxsae-count-" in asked and "--property=KillMode=mixed" in asked
  )
