"""`--dry-run` prints its transcripts word for word, and does nothing else.

The files in `golden/` are transcripts: a command after `$`, then what it
prints. `STATE` and `ROOT` stand for folders.
"""

import json
import pathlib
import re
import shlex

import pytest

from launch import source_archive
from launch.__main__ import main
from launch.command import Shell
from launch.ledger import Entry, Ledger, Run
from launch.request import Request
from tests.launch.conftest import script

GOLDEN = sorted((pathlib.Path(__file__).parent / "golden").glob("*.txt"))
REQUESTS = {
  "tpu_vm": Request("demo", "v5e:4x4", "us-west4-a", capacity="spot"),
  "queued": Request(
    "demo",
    "v5p:2x2x1",
    "us-east5-a",
    project="my-project",
    slices=2,
    disks=("text:/mnt/text", "weights:/data/w"),
  ),
  "mig": Request(
    "demo",
    "tpu7x:2x2x2",
    "us-central1-c",
    "mig",
    "my-project",
    disks=("text:/mnt/text",),
  ),
  "gke": Request(
    "demo",
    "v6e:4x4",
    "us-east5-b",
    "gke",
    capacity="spot",
    slices=2,
    cluster="my-cluster",
    image="us-docker.pkg.dev/p/r/jaxsae:1",
    disks=("text:/mnt/text",),
  ),
}
RUN = Run(
  "quickstart-000000",
  ["experiments/quickstart.py", "--workdir=gs://b/r"],
  "gs://b/r",
)
OUTSIDE = ("gcloud", "kubectl", "git", "ssh", "sky", "uv")


@pytest.fixture
def dry_run(tmp_path, monkeypatch, capsys):
  """dry_run("mig", "delete demo"): its output; it must call nothing."""
  stubs = tmp_path / "stubs"
  stubs.mkdir()
  for name in OUTSIDE:
    script(stubs / name, f"#!/bin/sh\n/bin/touch {tmp_path}/called\nexit 1\n")
  monkeypatch.setenv("PATH", str(stubs))
  state = tmp_path / "state"

  def call(kind, line):
    ledger = Ledger(state)
    verb, *words = shlex.split(line.replace("ROOT", str(source_archive.ROOT)))
    if verb != "create":
      entry = Entry(REQUESTS[kind], "now", {"commit": "c", "dirty": False}, RUN)
      ledger.write(entry)
    elif ledger.names():
      ledger.remove("demo")
    before = sorted(state.glob("[!.]*"))
    status = main([verb, f"--state={state}", "--dry-run", *words])
    said = capsys.readouterr()
    assert status == 0, said.err
    assert not (tmp_path / "called").exists()
    assert sorted(state.glob("[!.]*")) == before
    out = said.out.replace(str(state), "STATE")
    return out.replace(str(source_archive.ROOT), "ROOT")

  return call


def steps(file):
  """Splits a transcript into commands and their output."""
  parts = re.split(r"^\$ python -m launch ", file.read_text(), flags=re.M)
  for part in parts[1:]:
    line, _, printed = part.partition("\n")
    yield line, printed


@pytest.mark.parametrize(
  "kind, line, printed",
  [(file.stem, *step) for file in GOLDEN for step in steps(file)],
)
def test_it_prints_the_transcript(dry_run, kind, line, printed):
  assert dry_run(kind, line) == printed


def test_every_verb_is_in_a_transcript():
  there = {line.split()[0] for file in GOLDEN for line, _ in steps(file)}
  assert there >= set(
    "create setup run watch status logs stop delete list sweep".split()
  )
  assert {file.stem for file in GOLDEN} == REQUESTS.keys()


EXPERIMENT = "experiments/quickstart.py"
ALL = (
  "setup demo",
  f"run {EXPERIMENT} --workdir=gs://b/r",
  "watch demo --delete-when-done",
  "status demo",
  "logs",
  "stop",
  f"sweep --on=demo {EXPERIMENT} --workdir=gs://b/r",
  "list",
  "delete demo",
)


def test_all_verbs_can_be_rehearsed(tmp_path, monkeypatch, capsys):
  """Each prints commands, and nothing is on record but for dry runs."""
  monkeypatch.setenv("PATH", str(tmp_path))
  state = tmp_path / "state"

  def call(line, *more):
    verb, *words = line.split()
    status = main([verb, f"--state={state}", *more, *words])
    return status, *capsys.readouterr()

  create = "create demo --topology=v5e:2x4 --zone=us-west4-a"
  for line in (create, create, *ALL):  # nothing is there, so it may be twice
    status, out, err = call(line, "--dry-run")
    assert status == 0 and "gcloud" in out, (line, err)
    assert list(state.glob("*.json")) == []
    if line == ALL[1]:
      status, _, err = call("status demo")
      assert status == 2 and "only by a dry run" in err
      assert "launch create" in err
  status, _, err = call("status demo", "--dry-run")
  assert status == 2 and "there is none yet" in err  # it was deleted


def test_a_dry_run_leaves_what_was_created_as_it_is(tmp_path, capsys):
  """What was rehearsed under a name ends when the name is created."""
  Ledger(tmp_path, dry=True).write(Entry(REQUESTS["queued"], "now"))
  assert Ledger(tmp_path).names() == []
  Ledger(tmp_path).write(Entry(REQUESTS["tpu_vm"], "now"))
  dry = Ledger(tmp_path, dry=True)
  assert dry.read("demo").request.zone == REQUESTS["tpu_vm"].zone
  dry.write(Entry(REQUESTS["queued"], "now", run=RUN))
  dry.remove("demo")
  assert Ledger(tmp_path).read("demo").run is None
  Ledger(tmp_path).remove("demo")
  assert dry.names() == []
  state = f"--state={tmp_path}"
  Ledger(tmp_path).write(Entry(REQUESTS["tpu_vm"], "now"))
  words = ["create", "demo", "--topology=v5e:2x4", "--zone=us-west4-a"]
  assert main([*words, state, "--dry-run"]) == 2
  assert "already created" in capsys.readouterr().err


def test_printed_commands_can_be_pasted_into_a_shell(capsys):
  argv = ["ssh", "a b", "$(touch x)", "it's", "a\nb", ""]
  Shell(dry=True).run(argv)
  assert shlex.split(capsys.readouterr().out) == argv


def test_a_real_run_passes_the_same_arguments(tmp_path, monkeypatch, capsys):
  words = ["; touch x", "$(touch x)", "' \" \\", "a\nb", "*", ""]
  tell = f"#!{shlex.quote(__import__('sys').executable)}\n"
  tell += "import json, sys; print(json.dumps(sys.argv[1:]))\n"
  script(tmp_path / "echo", tell)
  done = Shell().run([str(tmp_path / "echo"), *words])
  assert json.loads(done.out) == words
