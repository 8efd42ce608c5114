"""A restart compiles nothing that was compiled before, and trains the same."""

import dataclasses
import json
import os
import pathlib
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from jaxsae import overrides
from jaxsae.errors import RunError
from jaxsae.lm import Site
from jaxsae.train.loop import train
from jaxsae.train.process import compile_cache as caches
from jaxsae.train.process.compile_cache import FOLDER, CompileCache
from tests import pods

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_compile_cache")]

# Tells at its end how often JAX wrote what it compiled, and found it.
SCRIPT = """
import collections, json, sys
import jax
seen = collections.Counter()
jax.monitoring.register_event_listener(lambda e, **_: seen.update([e]))
from jaxsae import overrides
from jaxsae.train import TrainConfig
from jaxsae.train import train
train(overrides.from_json(TrainConfig, json.load(open(sys.argv[1]))))
kinds = "compile_requests_use_cache", "cache_hits", "cache_misses"
print(*(seen["/jax/compilation_cache/" + kind] for kind in kinds))
"""


@pytest.fixture
def small(config, replace):
  return replace(config, sae__sites=(Site("resid", 1),), sae__target_l0=(4.0,))


def run(config, file, **environment):
  """Runs a process; returns programs asked for, found and kept, and output."""
  file.write_text(json.dumps(overrides.to_json(config)))
  done = subprocess.run(
    [sys.executable, "-c", SCRIPT, str(file)],
    env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "1"} | environment,
    capture_output=True,
    text=True,
    timeout=240,
    check=True,
  )
  *said, counts = done.stdout.splitlines()
  return [int(n) for n in counts.split()], "\n".join(said), done.stderr


def in_(config, folder):
  return dataclasses.replace(config, workdir=str(folder))


def test_a_second_start_compiles_nothing_and_changes_nothing(small, tmp_path):
  """The second start is from the beginning, the third from a checkpoint."""
  file = tmp_path / "config.json"
  cold, warm = (in_(small, tmp_path / "a" / name) for name in ("cold", "warm"))
  (asked, found, kept), out, _ = run(cold, file)
  assert asked == kept + found and kept > 0
  assert re.search(r"first step after .* s, of which .* s to compile", out)

  assert_found(asked, *run(warm, file))
  assert pods.metrics(warm) == pods.metrics(cold)
  go_back(warm)
  (asked, _, kept), _, _ = run(warm, file)  # what reads a checkpoint is new
  assert kept < asked
  go_back(warm)
  assert_found(asked, *run(warm, file))
  assert pods.metrics(warm) == pods.metrics(cold)
  whole = in_(small, tmp_path / "b" / "whole")
  # The first of these was compiled in this process.
  pods.assert_same(train(whole), train(warm))
  assert pods.metrics(whole) == pods.metrics(warm)


def assert_found(expected, counts, out, err):
  asked, found, kept = counts
  assert asked == found == expected and kept == 0
  assert re.search(r"first step after .* to load what was compiled before", out)
  assert "Loading" not in err and "machine" not in err


def go_back(config):
  """Removes the newest checkpoint."""
  remove(pathlib.Path(config.workdir) / "checkpoints" / str(config.steps))


def remove(folder):
  for file in sorted(folder.rglob("*"), reverse=True):
    file.rmdir() if file.is_dir() else file.unlink()
  folder.rmdir()


@pytest.fixture
def entered(tmp_path):
  """entered(function): calls it with the cache in use, returns its result."""

  def call(function):
    with CompileCache(str(tmp_path / "run")) as cache:
      return function(), cache.start()

  return call


def compile_anew():
  """Compiles the same program each time, because JAX sees a new function."""
  x = jax.ShapeDtypeStruct((8, 8), jnp.float32)
  return jax.jit(lambda x: jnp.sin(x) @ x).lower(x).compile()


def entries(tmp_path):
  return sorted((tmp_path / FOLDER).glob("*-cache"))


def test_a_truncated_program_is_compiled_again_and_kept(entered, tmp_path):
  """A process that is killed while it writes leaves such a file."""
  entered(compile_anew)
  (entry,) = entries(tmp_path)
  whole = entry.read_bytes()
  for rest in (whole[: len(whole) // 2], b""):
    entry.write_bytes(rest)
    _, start = entered(compile_anew)
    assert not start.found
    assert entered(compile_anew)[1].found


def test_only_new_programs_are_checked(entered, tmp_path, monkeypatch):
  entered(compile_anew)
  entered(compile_anew)
  looked = []
  monkeypatch.setattr(caches, "_is_whole", lambda e: looked.append(e) or True)
  entered(compile_anew)
  assert looked == []
  os.utime(entries(tmp_path)[0])
  entered(compile_anew)
  assert len(looked) == 1


def test_jaxs_settings_are_restored(entered, tmp_path):
  names = (
    "jax_compilation_cache_dir",
    "jax_persistent_cache_min_compile_time_secs",
  )
  before = [getattr(jax.config, name) for name in names]

  def fail():
    assert [getattr(jax.config, name) for name in names] != before
    raise RunError("it broke")

  with pytest.raises(RunError):
    entered(fail)
  assert [getattr(jax.config, name) for name in names] == before
  compile_anew()
  assert entries(tmp_path) == []


def test_a_folder_of_the_user_is_used(entered, tmp_path, monkeypatch):
  own = tmp_path / "own"
  jax.config.update("jax_compilation_cache_dir", str(own))
  try:
    entered(compile_anew)
  finally:
    jax.config.update("jax_compilation_cache_dir", None)
  assert not (tmp_path / FOLDER).exists()


def test_a_folder_that_cannot_be_made_is_reported(tmp_path, capsys):
  (tmp_path / FOLDER).write_text("in the way")
  with CompileCache(str(tmp_path / "run")) as cache:
    compile_anew()
  assert not cache.start().found
  err = capsys.readouterr().err
  assert f"{tmp_path / FOLDER} cannot be written (File exists)" in err


def test_the_cache_is_beside_the_run(tmp_path):
  for workdir in ("runs/a", "gs://bucket/runs/a", str(tmp_path / "a")):
    folder = str(CompileCache(workdir)._folder)
    assert folder == f"{workdir.rpartition('/')[0]}/{FOLDER}"
  assert pathlib.Path(str(CompileCache("a")._folder)) == pathlib.Path(FOLDER)
