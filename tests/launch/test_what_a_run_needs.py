"""Machines have a run's text and weights before it starts, or say what lacks.

Data disks are mounted and the user's script is run on every machine, new ones
included; then the run's own code says whether it can read what it needs.
"""

import json
import pathlib

import pytest

from launch import source_archive
from launch.command import Shell
from tests.launch.conftest import ONE, TWO, commit
from tests.launch.test_errors import refused
from tests.launch.test_preemption import (
  act_when,
  make_the_next_attempt_succeed,
  verbs,
)
from tests.launch.test_run import EXPERIMENT, HOSTILE

pytestmark = pytest.mark.slow

FAST = ("--poll=0.05", "--backoff=0.01")
PROJECT = "--project=my-project"

# Stands for jaxsae/runs/check.py, which imports JAX.
CHECK = """
import json, os, sys
options = dict(word[2:].split("=", 1) for word in sys.argv[2:])
place = options.get("text")
lost = place and not os.path.exists(place)
if options.get("silent") and os.path.exists(options["silent"]):
  sys.exit(42)
print("a line that a library prints")
print(json.dumps([f"--text={place}: it does not exist"] if lost else []))
"""


@pytest.fixture
def checkout(checkout):
  """A checkout whose code knows which places a run needs."""
  check = checkout / "jaxsae" / "runs" / "check.py"
  check.parent.mkdir(parents=True)
  check.write_text(CHECK)
  for folder in (check.parent, check.parents[1]):
    (folder / "__init__.py").touch()
  commit(checkout)
  return checkout


@pytest.fixture
def text(cloud, tmp_path):
  """A data disk `text`, and the folder where it will be mounted."""
  (tmp_path / "files").mkdir()
  (tmp_path / "files" / "a.txt").write_text("text")
  cloud.add_disk("text", tmp_path / "files")
  return tmp_path / "mnt" / "text"


@pytest.fixture
def with_disk(made, text):
  """with_disk(TWO): makes slices with the data disk."""
  disk = f"--disk=text:{text}"
  return lambda topology=ONE, *more: made("a", topology, PROJECT, disk, *more)


@pytest.fixture
def run(launch, tmp_path):
  """run("--text=…"): starts a run; returns status, stdout and stderr."""
  flags = (EXPERIMENT, f"--workdir={tmp_path / 'run'}")
  return lambda *words: launch("run", *flags, *words)


def write(path, text):
  path.write_text(text)
  return str(path)


@pytest.mark.parametrize(
  "topology, more", [(ONE, ()), (TWO, ()), (ONE, ("--slices=2",))]
)
def test_a_data_disk_is_mounted_on_every_machine(
  with_disk, text, topology, more, launch
):
  with_disk(topology, *more)
  assert (text / "a.txt").read_text() == "text"
  assert launch("setup", "a")[0] == 0  # again changes nothing


def test_after_a_reboot_it_is_mounted_before_the_run_starts(
  with_disk, text, run, cloud
):
  with_disk(TWO)
  cloud.reboot("a")
  assert not text.exists()
  status, _, err = run(f"--text={text}")
  assert status == 0, err
  assert (text / "a.txt").exists()


def test_a_disk_that_does_not_exist_is_refused(cloud, launch):
  where = ("--topology=v5p:2x2x1", "--zone=us-east5-a", PROJECT)
  said = launch("create", "a", *where, "--disk=none")
  assert refused(said, "data disk does not exist", "disks list", "none")
  assert launch("status")[0] == 2  # nothing was made


def test_a_disk_that_cannot_be_mounted_is_told_with_its_machine(
  cloud, launch, text, with_disk
):
  with pytest.raises(AssertionError) as failed:
    (cloud.folder / "bin" / "mount").write_text(
      "#!/bin/sh\necho 'mount: wrong fs type.' >&2\nexit 32\n"
    )
    with_disk(TWO)
  said = (2, "", str(failed.value).splitlines()[0] + "\n")
  assert refused(said, str(text), "wrong fs type", "slice 0 worker 0")
  assert "and on 1 more" in str(failed.value)


def test_the_script_runs_once_on_each_machine(
  made, launch, cloud, tmp_path, checkout
):
  made("a", TWO)
  name = tmp_path / 'it\'s $(touch x) "1".sh'
  write(name, "echo $PWD >> ran; command -v python >> ran")
  assert launch("setup", "a", f"--script={name}")[0] == 0
  (checkout / "more.txt").touch()
  commit(checkout)
  status, out, _ = launch("setup", "a")  # it is kept, and has run already
  assert status == 0 and f"{name.name} has run" in out
  for worker in range(2):
    home = cloud.home("a", worker)
    first, second = (home / "ran").read_text().splitlines()
    assert first == str(home) and second.endswith(".venv/bin/python")
  assert not list(tmp_path.rglob("x"))
  write(name, "echo changed >> ran")
  assert launch("setup", "a", f"--script={name}")[0] == 0
  assert (home / "ran").read_text().count("changed") == 1


def test_a_script_has_its_own_interpreter(made, launch, cloud, tmp_path):
  made()
  script = write(
    tmp_path / "fetch.py", "#!/usr/bin/env python3\nopen('ran', 'w').close()\n"
  )
  assert launch("setup", "a", f"--script={script}")[0] == 0
  assert (cloud.home("a") / "ran").exists()


def test_a_script_that_fails_is_told_with_its_last_lines(
  made, launch, cloud, tmp_path
):
  made("a", TWO)
  lines = "\n".join(f"echo line {i}" for i in range(30))
  script = write(tmp_path / "fetch.sh", f"{lines}\ntell\nexit 7\n")
  status, _, err = launch("setup", "a", f"--script={script}")
  assert status == 2 and "Traceback" not in err
  first, *output = err.splitlines()
  assert first.startswith("error: the script ended with status 7")
  assert "(on slice 0 worker 0, " in first and "and on 1 more" in first
  assert "  line 29" in output and "  line 3" not in output
  assert "tell: " in output[-1]
  write(tmp_path / "fetch.sh", "exit 0")
  assert launch("setup", "a", f"--script={script}")[0] == 0


def test_a_script_that_is_not_there_is_refused(made, launch):
  made()
  assert refused(launch("setup", "a", "--script=no.sh"), "--script=no.sh")


def test_a_run_is_not_started_where_its_text_is_missing(
  made, run, launch, cloud, tmp_path
):
  made("a", TWO)
  place = tmp_path / HOSTILE[0].replace("/", "")
  said = run(f"--text={place}")
  assert refused(said, f"--text={place}: it does not exist", "slice 0 worker 0")
  assert "and on 1 more" in said[2]
  assert not list(cloud.home("a").glob(".jaxsae/runs/*/process.json"))
  assert not list(tmp_path.rglob("x"))
  place.mkdir()
  assert run(f"--text={place}")[0] == 0


def test_a_silent_bucket_is_waited_for_on_the_same_machines(
  made, run, launch, cloud, tmp_path
):
  made("a", TWO)
  silent = tmp_path / "silent"
  assert run("--steps=3", f"--silent={silent}")[0] == 0
  silent.touch()
  refused(run("--steps=3", f"--silent={silent}"), "(on slice 0 worker ")
  ended = cloud.home("a", 1) / ".jaxsae" / "runs"

  def answer():
    make_the_next_attempt_succeed(cloud)
    silent.unlink()

  (file,) = ended.glob("*/ended.json")
  file.write_text(json.dumps({"attempt": 1, "status": 42}))
  thread = act_when(answer, lambda: looked(cloud) > 6)
  status, out, err = launch("watch", *FAST, "--retries=1")
  thread.join()
  assert status == 0, out + err
  assert out.count("(on slice 0 worker ") > 2
  assert verbs(cloud) == ["create", "scp"]


def looked(cloud):
  return sum("host.py check" in call[-1] for call in cloud.calls)


def test_a_run_is_not_started_with_different_code(made, run, cloud, launch):
  made("a", TWO)
  tree = cloud.home("a", 1) / ".jaxsae" / "tree"
  (tree.parent / "trees" / "other").mkdir()
  (tree.parent / "trees" / "other" / ".venv").mkdir()
  tree.unlink()
  tree.symlink_to("trees/other")
  assert refused(run(), "the code other", "slice 0 worker 1", "launch setup a")
  assert launch("setup", "a")[0] == 0
  assert run()[0] == 0


def test_a_mistake_in_a_flag_is_found_before_the_start(made, run, checkout):
  (checkout / "jaxsae" / "runs" / "check.py").write_text(
    "import sys; sys.exit('error: Unknown setting --txet; see --help.')"
  )
  made()
  assert refused(run("--txet=a"), "Unknown setting --txet")


def test_new_machines_get_the_disk_and_run_the_script_again(
  with_disk, text, run, launch, cloud, tmp_path
):
  """Everything else on the machines is lost with them."""
  with_disk(TWO)
  weights = cloud.local / "weights"
  script = write(tmp_path / "fetch.sh", f"cp -r {tmp_path}/files {weights}")
  assert launch("setup", "a", f"--script={script}")[0] == 0
  pathlib.Path(script).unlink()  # what was set up first is used again
  flags = ("--steps=30", "--pause=0.05", f"--text={weights}/a.txt")
  assert run(*flags)[0] == 0
  lost = []

  def preempt():
    cloud.preempt("a")
    lost.extend([text.exists(), weights.exists()])

  step = tmp_path / "run" / "checkpoints" / "2"
  thread = act_when(preempt, step.exists)
  status, out, err = launch("watch", *FAST)
  thread.join()
  assert status == 0, out + err
  assert lost == [False, False]
  assert "done at step 29" in out and (text / "a.txt").exists()


def test_machines_without_their_text_are_replaced_but_not_for_ever(
  made, run, launch, cloud, tmp_path
):
  made()
  place = cloud.local / "text"
  place.touch()
  flags = ("--steps=100000", "--pause=0.05", f"--text={place}")
  assert run(*flags)[0] == 0
  step = tmp_path / "run" / "checkpoints" / "2"
  thread = act_when(lambda: cloud.preempt("a"), step.exists)
  status, out, _ = launch("watch", *FAST, "--retries=2", "--delete-when-done")
  thread.join()
  assert status == 1
  assert (
    out.count(f"--text={place}: it does not exist (on slice 0 worker 0") == 3
  )
  assert "giving up after 2 restarts" in out and "not restarted" not in out
  first = ["create", "scp"]
  assert verbs(cloud) == [
    *first,
    *("delete", *first),  # the preemption
    "scp",  # set up again
    *("delete", *first),  # other machines
    "delete",
  ]


def test_a_record_without_disks_is_still_read(made, run, tmp_path, launch):
  """Slices that an older version created are watched on."""
  made()
  file = tmp_path / "state" / "a.json"
  data = json.loads(file.read_text())
  del data["script"], data["request"]["disks"]
  file.write_text(json.dumps(data))
  assert run()[0] == 0


def test_commands_at_once_give_their_results_in_order():
  naps = [["sh", "-c", f"sleep {(3 - i) / 20}; echo {i}"] for i in range(4)]
  done = Shell().run_at_once(naps)
  assert [one.out.strip() for one in done] == list("0123")


def test_a_dry_run_needs_the_script_too(tmp_path):
  assert source_archive.keep_script(Shell(dry=True), tmp_path, __file__)
  assert not (tmp_path / source_archive.SCRIPT).exists()
