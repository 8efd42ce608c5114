"""A run in a bucket, from its first command to its report.

It is killed, then the bucket fails for too long, and all the while some of its
requests fail. It ends as a run on a disk does, bit for bit.
"""

import dataclasses
import json
import os
import pathlib
import re
import time

import pytest
from etils import epath

from jaxsae.errors import UserError
from jaxsae.lm import Site
from jaxsae.train import read_metrics
from jaxsae.train.process.lease import Lease
from tests import buckets, pods

pytestmark = pytest.mark.slow

# A run that has little patience with the bucket.
TRAIN = (
  """
from jaxsae.storage import google, retries
google.SILENCE, retries.PATIENCE = 2.0, 8.0
"""
  + pods.EXPERIMENT
)
# Exports and explores a run: ours, and that on the disk.
AFTER = """
import json, os, sys
from jaxsae import cli
from jaxsae.storage import google
google.SILENCE = 2.0
for run, out in json.loads(os.environ["RUNS"]):
  for argv in (["export", run, f"--out={out}"], ["explore", run]):
    sys.argv = ["jaxsae", *argv]
    cli.main()
"""


@pytest.fixture
def bucket(monkeypatch):
  with buckets.Bucket() as bucket:
    for name, value in bucket.environment.items():
      monkeypatch.setenv(name, value)
    monkeypatch.setenv("TENSORSTORE_CURL_LOW_SPEED_TIME_SECONDS", "2")
    yield bucket


@pytest.fixture
def config(config, replace):
  return replace(config, sae__sites=(Site("resid", 1),), tokens=12 * 512)


def wait_for_checkpoint(bucket, step, pod, timeout=180):
  """Waits until the bucket has the checkpoint of a step."""
  end = time.monotonic() + timeout
  while f"run/checkpoints/{step}/commit_success.txt" not in bucket.names():
    assert not pod.over() and time.monotonic() < end, pod.said()
    time.sleep(0.05)


def lines(bucket) -> list[dict]:
  pieces = [bucket.read(name) for name in bucket.names("run/metrics")]
  return [json.loads(line) for piece in pieces for line in piece.splitlines()]


def assert_same_run(ours: pathlib.Path, theirs: pathlib.Path, step=12) -> None:
  """Asserts that two runs hold the same, but for times and their names."""
  assert pods.without_times(read_metrics(ours)) == pods.without_times(
    read_metrics(theirs)
  )
  for name in (f"eval/{step}.json", "policy.json", "corpus.json"):
    assert (ours / name).read_text() == (theirs / name).read_text(), name


def test_the_whole_chain(config, replace, bucket, tmp_path):
  here = replace(config, workdir=str(tmp_path / "run"))
  there = replace(config, workdir="gs://bucket/run")
  pods.run(here, tmp_path / "log here", devices=1)

  bucket.fail_in_turn(every=23)
  options = {"devices": 1, "script": TRAIN}
  with pods.Pod(there, tmp_path / "log 1", **options) as pod:
    wait_for_checkpoint(bucket, 2, pod)
    with pytest.raises(UserError, match="belongs to a run that is under way"):
      take(there.workdir)
    pod.kill()
  kept = lines(bucket)

  with pods.Pod(there, tmp_path / "log 2", **options) as pod:
    wait_for_checkpoint(bucket, 6, pod)
    assert lines(bucket)[:2] == kept[:2]  # with the times of then
    bucket.fail("503", buckets.always())
    assert pod.wait() == [42]
    (error,) = re.findall("^error: .*", pod.said(), re.MULTILINE)
    assert "did not answer" in error and "Traceback" not in pod.said()
  bucket.heal()

  bucket.fail_in_turn(every=23)
  pods.run(there, tmp_path / "log 3", **options)
  bucket.heal()
  after(bucket, here, there, tmp_path)


@pytest.mark.soak
def test_two_processes_in_a_bucket(config, replace, bucket, tmp_path):
  """They are killed while some requests fail, and go on as on a disk."""
  config = replace(config, tokens=6 * 512, mesh__model=2)
  here = replace(config, workdir=str(tmp_path / "run"))
  there = replace(config, workdir="gs://bucket/run")
  pods.run(here, tmp_path / "log here", 2, 2)
  bucket.fail_in_turn(every=23)
  with pods.Pod(there, tmp_path / "log 1", 2, 2, script=TRAIN) as pod:
    wait_for_checkpoint(bucket, 2, pod)
    pod.kill()
  pods.run(there, tmp_path / "log 2", 2, 2, script=TRAIN)
  bucket.heal()
  bucket.download("run/", tmp_path / "copy")
  assert_same_run(tmp_path / "copy", tmp_path / "run", step=6)
  pods.assert_same(
    pods.newest(replaced(there, tmp_path / "copy")), pods.newest(here)
  )


@pytest.mark.soak
@pytest.mark.parametrize("kind", buckets.KINDS)
def test_an_error_at_every_request(config, replace, bucket, tmp_path, kind):
  """Each request of a run fails at first."""
  config = replace(config, tokens=4 * 512)
  here = replace(config, workdir=str(tmp_path / "run"))
  there = replace(config, workdir="gs://bucket/run")
  pods.run(here, tmp_path / "log here", devices=1)
  bucket.fail(kind, buckets.each_at_first())
  with pods.Pod(there, tmp_path / "log", devices=1, script=TRAIN) as pod:
    assert pod.wait(3000) == [0], pod.said()
  assert bucket.failed > 200
  bucket.download("run/", tmp_path / "copy")
  assert_same_run(tmp_path / "copy", tmp_path / "run", step=4)
  pods.assert_same(
    pods.newest(replaced(there, tmp_path / "copy")), pods.newest(here)
  )


def take(workdir) -> None:
  lease = Lease(epath.Path(workdir))
  while not lease.take():
    time.sleep(0.1)


def after(bucket, here, there, tmp_path) -> None:
  """Exports and explores both runs, and compares all that they hold."""
  exported = tmp_path / "exported"
  runs = [
    (here.workdir, str(exported)),
    (there.workdir, "gs://bucket/exported"),
  ]
  os.environ["RUNS"] = json.dumps(runs)
  pods.run(there, tmp_path / "log after", devices=1, script=AFTER)
  copy = tmp_path / "copy"
  bucket.download("", copy)
  ours, theirs = copy / "run", pathlib.Path(here.workdir)
  assert_same_run(ours, theirs)
  pods.assert_same(pods.newest(replaced(there, ours)), pods.newest(here))
  assert files(copy / "exported") == files(exported)
  assert page(ours, there) == page(theirs, here)
  assert not (ours / "lease.json").exists()
  assert not (ours / "metrics").exists()  # all is in metrics.jsonl


def replaced(config, workdir):
  return dataclasses.replace(config, workdir=str(workdir))


def files(folder: pathlib.Path) -> dict[str, bytes]:
  return {
    str(path.relative_to(folder)): path.read_bytes()
    for path in folder.rglob("*")
    if path.is_file()
  }


def page(folder: pathlib.Path, config) -> str:
  text = (folder / "report" / "index.html").read_text()
  assert config.workdir in text
  return text.replace(config.workdir, "")
