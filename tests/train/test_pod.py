"""Several real processes form one mesh and train one run."""

import collections
import json
import os
import pathlib
import re
import signal
import time

import pytest

from jaxsae import data
from jaxsae.formats import load_sae
from jaxsae.lm import Site, load_lm
from jaxsae.mesh import MeshConfig
from jaxsae.train import loop
from jaxsae.train.process.shutdown import PREEMPTED
from tests import pods

pytestmark = pytest.mark.slow

HEARTBEAT = 10  # seconds
ABORTED = -signal.SIGABRT

# Notes every row that is put on a process's devices, and exports at the end.
# Four processes are laid out as a torus may have it, and not by number.
NOTING = """
import json, os
import jax
import numpy as np
from jax.experimental import mesh_utils
from jaxsae import overrides, runs, train
from jaxsae.train.sources import text
from jaxsae.train.config import TrainConfig

next_bucket = text.next_bucket

def noting(config, mesh, batches):
  number = batches.get_state()["next_batch"]
  bucket = next_bucket(config, mesh, batches)
  shards = bucket.tokens.addressable_shards
  parts = {str(shard.index): shard.data for shard in shards}
  rows = [row for x in parts.values() for row in x.reshape(-1, 16).tolist()]
  name = f"{os.environ['CONFIG']}.{jax.process_index()}"
  with open(name, "a") as file:
    file.write(json.dumps([number, rows]) + "\\n")
  return bucket

def turned(shape, devices, **_):
  return np.array(devices)[[0, 2, 3, 1]].reshape(shape)

text.next_bucket = noting
if os.environ.get("JAX_NUM_PROCESSES") == "4":
  mesh_utils.create_device_mesh = turned
config = json.load(open(os.environ["CONFIG"]))

def export(run):
  runs.export(run, "gemma_scope", run.path / "export")
  if os.environ.get("EXPLORE"):
    runs.explore(run)

runs.main(overrides.from_json(TrainConfig, config), then=export)
"""


@pytest.fixture
def small(config, replace):
  """Two autoencoders; rows and latents are spread over the devices."""
  return replace(config, sae__sites=(Site("resid", 1),))


@pytest.fixture
def named(small, replace, tmp_path):
  """named("a"): the config of the run in a folder of that name."""
  return lambda name: replace(small, workdir=str(tmp_path / name))


def final(config):
  """Returns the autoencoders, step and data position of a run."""
  state, position = pods.newest(config)
  return state.stacks, int(state.step), position


def test_processes_agree_with_one(config, replace, tmp_path, monkeypatch):
  monkeypatch.setenv("EXPLORE", "yes")
  in_ = lambda name: replace(
    config, workdir=str(tmp_path / name), mesh=MeshConfig(data=2, model=2)
  )
  one, four, log = in_("one"), in_("four"), tmp_path / "log four"
  pods.run(one, tmp_path / "log one", 1, 4, script=NOTING)
  pods.run(four, log, 4, 1, script=NOTING)
  stacks, *where = final(one)
  found, *there = final(four)
  assert there == where and where[0] == 6
  pods.assert_same(found, stacks, rtol=2e-3, atol=2e-5)
  assert_close(pods.metrics(four), pods.metrics(one))
  assert_close(judged(four), judged(one))
  assert_same_export(four, one)
  assert_same_report(four, one)
  assert_rows_are_shared(four, log, 4)
  # By number, the first would share its rows with the second.
  read = [noted(log, index) for index in range(4)]
  assert read[0] == read[2] != read[1] == read[3]


def judged(config):
  record = pathlib.Path(config.workdir) / "eval" / f"{config.steps}.json"
  results = json.loads(record.read_text())["results"]
  return [{k: v for k, v in x.items() if isinstance(v, float)} for x in results]


def assert_close(found, expected):
  for mine, theirs in zip(found, expected, strict=True):
    assert mine.keys() == theirs.keys()
    for name, value in theirs.items():
      assert mine[name] == pytest.approx(value, rel=2e-2, abs=1e-3), name


def assert_same_export(run, other):
  folders = [pathlib.Path(r.workdir) / "export" for r in (run, other)]
  files = [sorted(f.rglob("params.npz")) for f in folders]
  assert len(files[0]) == 4
  for mine, theirs in zip(*files, strict=True):
    assert mine.relative_to(folders[0]) == theirs.relative_to(folders[1])
    pods.assert_same(load_sae(mine), load_sae(theirs), rtol=2e-3, atol=2e-4)


def assert_same_report(a, b):
  """Asserts that both have a page that shows the same documents' names."""
  pages = [
    pathlib.Path(config.workdir, "report", "index.html").read_text()
    for config in (a, b)
  ]
  shown = [set(re.findall(r"[\w-]+\.txt", page)) for page in pages]
  assert shown[0] == shown[1] and shown[0]
  assert abs(len(pages[0]) - len(pages[1])) < 0.02 * len(pages[0])


def assert_rows_are_shared(config, folder, count):
  """Each bucket's rows are those of its batch, each in one place of data."""
  read = [noted(folder, index) for index in range(count)]
  straight = data.batches(corpus(config).train, 32)
  for number in range(config.steps):
    expected = collections.Counter(map(tuple, next(straight).tokens.tolist()))
    parts = [counts[number] for counts in read]
    # Two processes that share a row of the mesh hold the same rows of text.
    distinct = {frozenset(part.items()): part for part in parts}.values()
    assert sum(distinct, collections.Counter()) == expected
    assert all(part != expected for part in parts)


def noted(folder, index) -> dict[int, collections.Counter]:
  lines = (folder / f"config.json.{index}").read_text().splitlines()
  return {
    number: collections.Counter(map(tuple, rows))
    for number, rows in map(json.loads, lines)
  }


def corpus(config):
  return loop.open_corpus(config, load_lm(config.lm))


def test_all_save_the_same_step_when_one_gets_sigterm(named, tmp_path):
  whole, parts = named("whole"), named("parts")
  pods.run(whole, tmp_path / "log", 2, 1)
  with pods.Pod(parts, tmp_path / "first", 2, 1) as pod:
    pods.wait_for_step(parts, 1, pod)
    pod.processes[1].terminate()
    assert pod.wait(60) == [PREEMPTED, PREEMPTED], pod.said()
  assert "to go on:" in pod.said() and "to go on:" not in pod.said(1)
  assert 0 < final(parts)[1] < 6
  pods.run(parts, tmp_path / "second", 2, 1)
  pods.assert_same(final(parts)[0], final(whole)[0])
  assert pods.metrics(parts) == pods.metrics(whole)


@pytest.mark.parametrize(
  "lost, sent", [(0, signal.SIGKILL), (1, signal.SIGKILL), (1, signal.SIGSTOP)]
)
def test_a_lost_process_ends_the_others(named, replace, tmp_path, lost, sent):
  run = replace(named("run"), tokens=35 * 512)
  with pods.Pod(run, tmp_path / "log", 2, 1, heartbeat=HEARTBEAT) as pod:
    pods.wait_for_step(run, 3, pod)
    os.kill(pod.processes[lost].pid, sent)
    begin = time.monotonic()
    other = 1 - lost
    assert pod.processes[other].wait(4 * HEARTBEAT) == ABORTED
    assert time.monotonic() - begin < 2 * HEARTBEAT
  named = "leader" if lost == 0 else f"stopped sending heartbeats):\n{lost}\n"
  assert named in pod.said(other)


def test_an_error_of_the_leader_is_reported_by_all_and_ends_all(
  named, replace, tmp_path
):
  """Only the leader looks into the folder and finds the error."""
  run = named("run")
  pathlib.Path(run.workdir).mkdir()
  (pathlib.Path(run.workdir) / "notes.txt").write_text("mine")
  with pods.Pod(run, tmp_path / "log", 2, 1) as pod:
    assert pod.wait(120) == [2, 2]
  assert all("holds no run" in pod.said(index) for index in range(2))
