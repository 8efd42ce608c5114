"""The runs of an experiment over slices: each run once, and on with it."""

import signal
import subprocess
import sys
import time

import pytest

from launch import experiment_runs
from launch.errors import LaunchError
from launch.ledger import Ledger
from tests.launch.conftest import commit
from tests.launch.test_preemption import FAST, act_when

EXPERIMENT = "experiments/grid.py"
# Six runs, dealt out as `main_each` does; one that is complete is left alone.
GRID = """
import pathlib, sys, time
options = dict(word[2:].split("=", 1) for word in sys.argv[1:])
index, count = map(int, options["shard"].split("/"))
parent = pathlib.Path(options["workdir"])
parent.mkdir(parents=True, exist_ok=True)
gate = options.get("gate")
while gate and not pathlib.Path(gate).exists():
  time.sleep(0.02)
for number in range(index - 1, 6, count):
  time.sleep(float(options.get("pause", 0)))
  done = parent / f"run{number}"
  if not done.exists():
    done.touch()
    with open(parent / "log", "a") as log:
      log.write(f"{number} {index}/{count}\\n")
"""


@pytest.fixture
def grid(checkout, made):
  """Two slices, and an experiment of six runs."""
  (checkout / EXPERIMENT).write_text(GRID)
  commit(checkout)
  return [made("a"), made("b")]


# In the checkout of the test, as a process of its own.
SWEEP = """
import pathlib, sys
from launch import source_archive
from launch.__main__ import main
source_archive.ROOT = pathlib.Path(sys.argv.pop(1))
sys.exit(main())
"""


def sweeping(tmp_path, *words):
  """A sweep in another process, once it has seen a run."""
  state = (f"--state={tmp_path / 'state'}", "--on=a,b")
  checkout = str(tmp_path / "checkout")
  process = subprocess.Popen(
    [sys.executable, "-c", SWEEP, checkout, "sweep", *state, *FAST, *words],
    stdout=subprocess.PIPE,
    text=True,
  )
  assert any("attempt 1" in line for line in process.stdout)
  return process


def taken(folder):
  """The runs that were trained, and by which share."""
  return sorted((folder / "log").read_text().splitlines())


def test_each_run_is_taken_once(grid, launch, tmp_path, cloud):
  folder = tmp_path / "runs"
  words = ("--on=a,b", *FAST, EXPERIMENT, f"--workdir={folder}")
  status, out, err = launch("sweep", *words)
  assert status == 0, out + err
  assert taken(folder) == [f"{i} {i % 2 + 1}/2" for i in range(6)]
  assert "[a] " in out and "[b] " in out
  # The same command again has nothing to do.
  assert launch("sweep", *words)[0] == 0
  assert len(taken(folder)) == 6


def test_a_slice_that_is_preempted_goes_on(grid, launch, tmp_path, cloud):
  folder = tmp_path / "runs"
  first = folder / "run0"
  thread = act_when(lambda: cloud.preempt("a"), first.exists)
  words = (EXPERIMENT, f"--workdir={folder}", "--pause=0.3")
  status, out, _ = launch("sweep", "--on=a,b", *FAST, *words)
  thread.join()
  assert status == 0, out
  assert "[a] creating a again" in out
  assert taken(folder) == [f"{i} {i % 2 + 1}/2" for i in range(6)]


def test_a_slice_is_deleted_when_its_share_is_over(
  grid, launch, tmp_path, cloud
):
  words = (EXPERIMENT, f"--workdir={tmp_path / 'runs'}")
  status, out, _ = launch(
    "sweep", "--on=a,b", *FAST, "--delete-when-done", *words
  )
  assert status == 0 and "a is deleted" in out and "b is deleted" in out
  with cloud.open() as data:
    assert data["nodes"] == {}
  assert Ledger(tmp_path / "state").names() == []


def test_an_interrupted_sweep_deletes_all(grid, tmp_path, cloud):
  words = (EXPERIMENT, f"--workdir={tmp_path / 'runs'}", "--pause=30")
  with sweeping(tmp_path, "--delete-when-done", *words) as process:
    process.send_signal(signal.SIGTERM)
    out = process.stdout.read()
    assert process.wait(30) == 143, out
  with cloud.open() as data:
    assert data["nodes"] == {}


def test_a_sweep_that_runs_already_is_only_watched(
  grid, launch, tmp_path, cloud
):
  gate = tmp_path / "gate"
  words = (EXPERIMENT, f"--workdir={tmp_path / 'runs'}", f"--gate={gate}")
  with sweeping(tmp_path, *words) as process:
    process.kill()
  asked = len(cloud.calls)
  thread = act_when(gate.touch, lambda: len(cloud.calls) > asked + 8)
  status, out, _ = launch("sweep", "--on=a,b", *FAST, *words)
  thread.join()
  assert (
    status == 0
    and "already running on a" in out
    and "already running on b" in out
  )
  assert len(taken(tmp_path / "runs")) == 6


@pytest.mark.parametrize("flag", ["--only=a", "--shard=1/2"])
def test_a_sweep_chooses_the_runs_itself(flag):
  with pytest.raises(LaunchError, match=flag):
    experiment_runs.shard_argv(["x.py", flag], 0, 2)


def test_slices_of_one_program_and_names_given_twice_are_refused(
  grid, launch, made
):
  made("c", "v5p:2x2x1", "--slices=2")
  words = (EXPERIMENT, "--workdir=gs://b/r")
  status, _, err = launch("sweep", "--on=a,c", *words)
  assert status == 2 and "2 slices that form one program" in err
  status, _, err = launch("sweep", "--on=a,a", *words)
  assert status == 2 and "twice" in err


def test_the_worst_share_is_the_status():
  assert experiment_runs.ParallelWatch().run([lambda: 0, lambda: 42]) == 42
  assert experiment_runs.ParallelWatch().run([lambda: 1, lambda: 42]) == 1


def test_what_a_share_raises_is_raised_when_all_are_over():
  ended = []

  def slow():
    time.sleep(0.3)
    ended.append(1)
    return 0

  def wrong():
    raise LaunchError("no login.")

  with pytest.raises(LaunchError, match="no login"):
    experiment_runs.ParallelWatch().run([wrong, slow])
  assert ended == [1]
