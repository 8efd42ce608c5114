"""Fixtures: a cloud in a folder, a checkout to launch from, and `launch`."""

import os
import pathlib
import shutil
import subprocess
import sys

import pytest

from launch import hosts, source_archive
from launch.__main__ import main
from tests.launch.fake_gcloud import Cloud

ONE, TWO = "v5p:2x2x1", "v5p:2x2x2"  # workers
HERE = pathlib.Path(__file__).parent
TOOLS = (
  "bash cp cut flock ln mkdir mv rm rmdir sha256sum sleep tar touch"
).split()

# Takes the place of uv on workers: their environment is the one of the tests.
UV = """#!/bin/sh
echo "uv $*" >> "$HOME/uv.log"
if [ "$1" = venv ]; then
  for folder; do :; done
  mkdir -p "$folder/bin"
  ln -s "${0%/*}/../environment/python" "$folder/bin/python"
fi
"""

SUDO = """#!/bin/sh
shift
exec "$@"
"""

# mount -o ro /dev/disk/by-id/google-persistent-disk-N FOLDER. All workers of a
# slice share the folder, and may come here at the same time.
MOUNT = """#!/bin/sh
device=$3 folder=$4
set -- "${device##*-}" $FAKE_DISKS
shift "$1" 2> /dev/null || set -- none
[ -d "$1" ] || { echo "mount: special device $device does not exist." >&2
  exit 32; }
echo "$folder" >> "$FAKE_MOUNTS"
for try in 1 2 3 4 5; do
  [ -L "$folder" ] && exit 0
  rmdir "$folder"
  ln -sT "$1" "$folder"
done
"""

MOUNTPOINT = """#!/bin/sh
test -L "$2"
"""

# Counts to a number, a step each; begins where it was killed.
COUNT = """
import json, os, pathlib, signal, sys, time
options = dict(word[2:].split("=", 1) for word in sys.argv[1:])
run = pathlib.Path(options["workdir"])
(run / "checkpoints").mkdir(parents=True, exist_ok=True)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(42))
print("worker", os.environ["JAX_PROCESS_ID"], sys.argv[1:], flush=True)
if os.environ["JAX_PROCESS_ID"] == options.get("bad", "0"):
  (run / "flags.json").write_text(json.dumps(sys.argv[1:]))
  for step in range(int(options.get("steps", 0))):
    (run / "checkpoints" / str(step)).mkdir(exist_ok=True)
    time.sleep(float(options.get("pause", 0)))
  sys.exit(int(options.get("status", 0)))
"""


def script(path, text):
  path.write_text(text)
  path.chmod(0o755)


@pytest.fixture
def cloud(tmp_path, monkeypatch):
  """Makes the cloud that the fake gcloud uses."""
  made = Cloud(tmp_path / "cloud")
  workers = made.folder / "bin"
  workers.mkdir()
  for tool in TOOLS:
    (workers / tool).symlink_to(shutil.which(tool))
  script(workers / "python3", f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
  script(workers / "uv", UV)
  script(workers / "sudo", SUDO)
  script(workers / "mount", MOUNT)
  script(workers / "mountpoint", MOUNTPOINT)
  environment = made.folder / "environment"
  environment.mkdir()
  script(environment / "python", f'#!/bin/sh\nexec {sys.executable} "$@"\n')
  here = tmp_path / "bin"
  here.mkdir()
  fake = f'#!/bin/sh\nexec {sys.executable} -S {HERE / "fake_gcloud.py"} "$@"\n'
  script(here / "gcloud", fake)
  monkeypatch.setenv("PATH", f"{here}{os.pathsep}{os.environ['PATH']}")
  monkeypatch.setenv("FAKE_GCLOUD", str(made.folder))
  monkeypatch.setattr(hosts, "_PAUSES", (0, 0, 0))
  yield made
  made.end()


@pytest.fixture
def checkout(tmp_path, monkeypatch):
  """Makes a git checkout with one experiment, which counts steps."""
  root = tmp_path / "checkout"
  (root / "experiments").mkdir(parents=True)
  (root / "experiments" / "count.py").write_text(COUNT)
  (root / "requirements-tpu.txt").write_text("jax==0.10.0\n")
  commit(root)
  monkeypatch.setattr(source_archive, "ROOT", root)
  return root


def commit(root):
  git = ["git", "-C", str(root), "-c", "user.name=a", "-c", "user.email=a@b"]
  for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "all"]):
    subprocess.run([*git, *words], check=True)


@pytest.fixture
def launch(tmp_path, capsys):
  """launch("create", "a", …): returns the exit status, stdout and stderr."""

  def call(verb, *words):
    state = f"--state={tmp_path / 'state'}"
    status = main([verb, state, *words])
    said = capsys.readouterr()
    return status, said.out, said.err

  return call


@pytest.fixture
def made(cloud, checkout, launch):
  """made("a"): creates and sets up a slice of one worker."""

  def make(name="a", topology=ONE, *words):
    where = ("--zone=us-east5-a", "--poll=0.05")
    status, _, err = launch(
      "create", name, f"--topology={topology}", *where, *words
    )
    assert status == 0, err
    status, _, err = launch("setup", name)
    assert status == 0, err
    return name

  return make
