"""A start that is killed at any point is repeated by the next."""

import json
import pathlib
import subprocess
import sys

import pytest

from jaxsae import overrides
from jaxsae.errors import UserError
from jaxsae.lm import Site
from jaxsae.train.loop import train
from tests.train.worker import Worker

pytestmark = pytest.mark.slow

# Kills a copy of itself, for real, at the first, the second, … file operation
# of a start, and starts again each time.
SCRIPT = """
import json, os, pathlib, shutil, signal, sys, types
import jax
import numpy as np
from etils import epath
from jaxsae import overrides
from jaxsae.data import TokenPolicy
from jaxsae.train.process import lease
from jaxsae.train.process import corpus_check
from jaxsae.train.process import workdir
from jaxsae.train.config import TrainConfig

jax.process_count, jax.process_index = lambda: 1, lambda: 0  # without devices
config = overrides.from_json(TrainConfig, json.loads(sys.argv[1]))
path = epath.Path(config.workdir)
policy = TokenPolicy(tokenizer="abc", bos=2, eos=1, context=16)
rows = types.SimpleNamespace(tokens=3)
corpus = types.SimpleNamespace(
  fingerprint="f", documents=["a.txt"], train=rows, held_out=rows,
  hashes=np.zeros((1, 16), np.uint8))
ALTERING = {"os.mkdir", "os.rename", "os.remove", "os.rmdir"}
left = float("inf")

def killer(event, args):
  global left
  if event in ALTERING or event == "open" and alters(*args):
    left -= 1
    if left < 0:
      os.kill(os.getpid(), signal.SIGKILL)

def alters(name, mode, flags):
  return str(name).startswith(str(path)) and flags & (os.O_WRONLY | os.O_RDWR)

def start():
  with lease.hold(path):
    workdir.claim(config, policy)
    corpus_check.check(path, corpus)

def in_a_copy(act, number):
  global left
  pid = os.fork()
  if pid:
    return os.waitpid(pid, 0)[1]
  left = number
  try:
    act()
    os._exit(0)
  except BaseException as error:
    print(repr(error), file=sys.stderr)
    os._exit(1)

sys.addaudithook(killer)
seen, number = [], 0
while (status := in_a_copy(start, number)) == signal.SIGKILL:
  seen.append(sorted(p.name for p in path.iterdir()) if path.exists() else None)
  again = in_a_copy(start, float("inf"))
  seen[-1] = [seen[-1], again, sorted(p.name for p in path.iterdir())]
  shutil.rmtree(path)
  number += 1
print(json.dumps([status, seen]))
"""
WHOLE = ["config.json", "corpus.json", "policy.json"]


def test_a_start_is_killed_at_every_file_operation(config):
  given = json.dumps(overrides.to_json(config))
  done = subprocess.run(
    [sys.executable, "-W", "ignore", "-c", SCRIPT, given],
    capture_output=True,
    text=True,
    timeout=120,
    check=True,
  )
  status, seen = json.loads(done.stdout.splitlines()[-1])
  assert status == 0 and len(seen) > 12  # in the end it is not killed
  for left, again, after in seen:
    assert (again, after) == (0, WHOLE), (left, done.stderr)
  lefts = [left for left, *_ in seen]
  assert None in lefts and ["lease.json", "policy.json"] in lefts
  assert any(name.endswith(".partial") for left in lefts[1:] for name in left)


POLICY = '{"tokenizer": 0, "bos": 0, "eos": 0, "context": 0, "packing": 0}'


@pytest.mark.parametrize(
  ("name", "text"),
  [
    ("policy.json", '{"Version": "2012-10-17"}'),
    ("policy.json", "{"),
    ("thesis.tex", ""),
    (".config.json.7.partial.tex", ""),
  ],
)
def test_files_of_the_user_are_not_an_unfinished_start(config, name, text):
  file = pathlib.Path(config.workdir) / name
  file.parent.mkdir()
  (file.parent / "policy.json").write_text(POLICY)
  file.write_text(text)
  with pytest.raises(UserError, match="is not empty and holds no run"):
    train(config)
  assert file.read_text() == text
  assert not (file.parent / "config.json").exists()


EXPORTING = """
import contextlib
from pathlib import Path
from jaxsae import files
ending = contextlib.ExitStack()
"""


def test_a_restart_removes_only_files_of_the_killed_start(config, replace):
  config = replace(config, tokens=512, sae__sites=(Site("resid", 0),))
  train(config)
  run = pathlib.Path(config.workdir)
  with Worker(EXPORTING) as living:
    assert living.hear() == "ready"
    new = str(run / "export" / "new")
    living.do(f"ending.enter_context(files.whole_folder(Path({new!r})))")
    gone = [
      run / ".metrics.jsonl.1.partial",
      run / ".config.json.99999999.partial",
      run / "eval" / ".6.json.99999999.partial",
      run / "export" / "old.partial" / "sae.npz",
      run / "checkpoints" / "9.orbax-checkpoint-tmp" / "x",
    ]
    kept = [
      run / "eval" / f".7.json.{living.pid}.partial",
      run / "notes.partial",
      run / "mine.partial" / "x",
    ]
    for file in gone + kept:
      file.parent.mkdir(parents=True, exist_ok=True)
      file.write_text("")
    train(config)
    assert [file for file in gone if file.exists()] == []
    assert [file for file in kept if not file.exists()] == []
    assert [*(run / "export").glob("new.*.partial")]
  assert not gone[3].parent.exists() and not gone[4].parent.exists()
