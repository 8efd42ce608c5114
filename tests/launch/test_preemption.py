"""A watch restarts what it should, and deletes slices if asked."""

import json
import signal
import subprocess
import sys
import threading
import time

import pytest

from launch.ledger import Ledger
from tests.launch.conftest import TWO
from tests.launch.test_run import EXPERIMENT

pytestmark = pytest.mark.slow

FAST = ("--poll=0.05", "--backoff=0.01")
# How a shell starts what it puts in the background: SIGINT is ignored.
IGNORING_SIGINT = ("sh", "-c", 'trap "" INT; exec "$@"', "sh")
NO_SSH = (255, "ssh: connect to host port 22: Connection refused")


def act_when(act, when, tries=1000):
  """Acts from another thread once a condition holds."""

  def wait():
    for _ in range(tries):
      if when():
        return act()
      time.sleep(0.01)

  thread = threading.Thread(target=wait)
  thread.start()
  return thread


@pytest.fixture
def run(launch, tmp_path):
  def start(*flags):
    folder = tmp_path / "run"
    words = (EXPERIMENT, f"--workdir={folder}", *flags)
    assert launch("run", *words)[0] == 0
    return folder

  return start


def verbs(cloud):
  """Lists the calls that change something, in short form."""
  named = [call[call.index("compute") + 1 :] for call in cloud.calls]
  changes = {"create", "delete", "scp"}
  return [w for words in named for w in words[:4] if w in changes]


def test_a_preempted_run_is_restarted_and_continues(
  made, run, launch, cloud, tmp_path
):
  made("a", TWO)
  folder = run("--steps=40", "--pause=0.05")
  step = folder / "checkpoints" / "5"
  thread = act_when(lambda: cloud.preempt("a"), step.exists)
  status, out, err = launch("watch", *FAST)
  thread.join()
  assert status == 0, out + err
  assert "preempted" in out and "creating a again" in out
  assert "done at step 39" in out
  # scp is of the first set-up and of the second.
  assert verbs(cloud) == ["create", "scp", "delete", "create", "scp"]
  run_ = Ledger(tmp_path / "state").read("a").run
  assert [x["why"] for x in run_.attempts] == ["run", "preempted"]
  jobs = cloud.home("a").glob(".jaxsae/runs/*/job.json")
  assert [json.loads(x.read_text())["attempt"] for x in jobs] == [2]


def test_a_new_machine_gets_the_same_code_as_before(
  made, run, launch, cloud, checkout
):
  made()
  folder = run("--steps=30", "--pause=0.05")
  (checkout / EXPERIMENT).write_text("raise SystemExit(1)")
  step = folder / "checkpoints" / "2"
  thread = act_when(lambda: cloud.preempt("a"), step.exists)
  status, out, _ = launch("watch", *FAST)
  thread.join()
  assert status == 0, out


def test_status_42_restarts_the_run_on_the_same_slices(
  made, run, launch, cloud
):
  made("a", TWO)
  folder = run("--steps=3", "--status=42")
  done = lambda: (folder / "checkpoints" / "2").exists()
  thread = act_when(lambda: make_the_next_attempt_succeed(cloud), done)
  status, out, _ = launch("watch", *FAST)
  thread.join()
  assert status == 0, out
  assert "restarted" in out and verbs(cloud) == ["create", "scp"]


def make_the_next_attempt_succeed(cloud):
  """Replaces the experiment on both workers by one that succeeds."""
  for worker in range(2):
    home = cloud.home("a", worker) / ".jaxsae" / "tree" / EXPERIMENT
    home.write_text("print('fine')")


@pytest.mark.parametrize("status", [1, 139])
def test_an_error_of_the_run_is_not_restarted(made, run, launch, cloud, status):
  made("a", TWO)
  run(f"--status={status}", "--bad=1")
  ended, out, _ = launch("watch", *FAST)
  assert ended == 1 and f"slice 0 worker 1: {status}" in out
  assert "not restarted" in out
  assert "worker 1" in out.split("worker 1: ")[1]  # its log is shown
  assert verbs(cloud) == ["create", "scp"]


def test_occasional_failures_of_ssh_are_harmless(made, run, launch, cloud):
  made()
  run("--steps=20", "--pause=0.05")
  cloud.fail_next("ssh", *[NO_SSH] * 6)
  status, out, _ = launch("watch", *FAST)
  assert status == 0, out
  assert verbs(cloud) == ["create", "scp"]


def test_ssh_is_retried_during_set_up(made, launch, cloud, run):
  cloud.fail_next("ssh", NO_SSH, NO_SSH)
  made()
  cloud.fail_next("ssh", NO_SSH)
  run("--steps=1")
  assert launch("watch", *FAST)[0] == 0


def test_a_machine_that_stays_silent_is_replaced(made, run, launch, cloud):
  made()
  run("--steps=5", "--pause=0.05")
  cloud.fail_next("ssh", *[NO_SSH] * 10)
  status, out, _ = launch("watch", *FAST)
  assert status == 0, out
  assert verbs(cloud) == ["create", "scp", "delete", "create", "scp"]


def test_a_set_up_that_failed_halfway_is_repeated(made, run, launch, cloud):
  made()
  folder = run("--steps=10", "--pause=0.05")
  step = folder / "checkpoints" / "2"

  def preempt():
    cloud.preempt("a")
    cloud.fail_next("ssh", [1, "disk full"])

  # The poll that finds the slice gone takes no fault: its node is lost first.
  thread = act_when(preempt, step.exists)
  status, out, _ = launch("watch", *FAST)
  thread.join()
  assert status == 0, out


def test_slow_boots_are_waited_for(cloud, checkout, launch):
  cloud.fail_next("boot", 3)
  status, out, _ = launch(
    "create", "a", "--topology=v5p:2x2x2", "--zone=us-east5-a", "--poll=0.01"
  )
  assert status == 0 and "ready: 2 workers" in out
  looks = [call for call in cloud.calls if "describe" in call]
  assert len(looks) == 4


def test_queued_slices_are_waited_for_and_form_one_program(
  made, run, launch, cloud
):
  made("a", "v5p:2x2x1", "--slices=2", "--capacity=spot")
  with cloud.open() as data:
    assert set(data["nodes"]) == {"a-0", "a-1"}
  run("--steps=2")
  status, out, _ = launch("watch", *FAST)
  assert status == 0 and "done" in out
  assert "slice 1 worker 0: ended" in launch("status")[1]
  assert launch("delete", "a")[0] == 0
  with cloud.open() as data:
    assert not data["nodes"] and not data["queued"]


def test_a_suspended_request_is_deleted_before_a_new_one(
  made, run, launch, cloud
):
  made("a", "v5p:2x2x1", "--capacity=queued")
  folder = run("--steps=30", "--pause=0.05")
  step = folder / "checkpoints" / "2"
  thread = act_when(lambda: cloud.preempt("a"), step.exists)
  status, out, _ = launch("watch", *FAST)
  thread.join()
  assert status == 0, out
  assert verbs(cloud) == ["create", "scp", "delete", "create", "scp"]


def test_a_request_that_failed_for_good_is_not_made_again(
  made, run, launch, cloud
):
  made("a", "v5p:2x2x1", "--capacity=queued")
  run("--steps=100000", "--pause=0.05")
  cloud.preempt("a")
  with cloud.open() as data:
    error = {
      "message": "The resource 'projects/p/zones/z/disks/text' was not found"
    }
    data["queued"]["a"] |= {
      "state": "FAILED",
      "why": {"failedData": {"error": error}},
    }
  status, _, err = launch("watch", *FAST)
  assert status == 2 and "disks list" in err
  assert verbs(cloud) == ["create", "scp"]


@pytest.mark.parametrize("status", [0, 1])
def test_deletion_when_done_or_failed(made, run, launch, cloud, status):
  made()
  run(f"--status={status}")
  ended, out, _ = launch("watch", *FAST, "--delete-when-done")
  assert ended == status and "a is deleted" in out
  with cloud.open() as data:
    assert data["nodes"] == {}
  assert launch("status")[0] == 2


def test_a_failed_deletion_is_retried_and_then_reported(
  made, run, launch, cloud
):
  made()
  run()
  cloud.fail_next("delete", [1, "backend error"])
  assert launch("watch", *FAST, "--delete-when-done")[0] == 0
  with cloud.open() as data:
    assert data["nodes"] == {}
  made()
  run()
  cloud.fail_next("delete", *[[1, "backend error"]] * 5)
  status, _, err = launch("watch", *FAST, "--delete-when-done")
  assert status == 0 and "cost money" in err and "launch delete a" in err
  assert launch("status")[0] == 0  # it is remembered


def watching(tmp_path, *words):
  """Starts a watch in another process, and waits until it follows the run."""
  state = f"--state={tmp_path / 'state'}"
  command = [sys.executable, "-m", "launch", "watch", state, *FAST, *words]
  watch = subprocess.Popen(
    [*IGNORING_SIGINT, *command], stdout=subprocess.PIPE, text=True
  )
  assert any("worker 0" in line for line in watch.stdout)
  return watch


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_watch_leaves_a_checkpoint_and_deletes(
  made, run, cloud, tmp_path, number
):
  made()
  run("--steps=100000", "--pause=0.05")
  with watching(tmp_path, "--delete-when-done") as watch:
    watch.send_signal(number)
    out = watch.stdout.read()
    assert watch.wait(30) == {2: 130, 15: 143}[number]
  assert "asking for checkpoints" in out and "a is deleted" in out
  asked = [any("host.py stop" in w for w in words) for words in cloud.calls]
  assert any(asked)
  with cloud.open() as data:
    assert data["nodes"] == {}


def test_without_the_flag_an_interrupted_watch_leaves_the_run_alone(
  made, run, tmp_path, launch
):
  made()
  run("--steps=100000", "--pause=0.05")
  with watching(tmp_path) as watch:
    watch.send_signal(signal.SIGTERM)
    watch.stdout.read()
    assert watch.wait(30) == 143
  assert "running" in launch("status")[1]
