"""A run goes on with other devices, meshes and numbers of processes."""

import collections

import numpy as np
import pytest

from jaxsae import data
from jaxsae.lm import Site
from jaxsae.mesh import MeshConfig
from jaxsae.train.loop import train
from tests import pods
from tests.train.test_pod import NOTING, corpus, final, noted

pytestmark = pytest.mark.slow

# Stops after a step, as preemption would, and notes every row it trains on.
LEAVING = NOTING.replace(
  "text.next_bucket = noting",
  """text.next_bucket = noting
from jaxsae.train.process import shutdown
asked = shutdown.ShutdownSignal.asked

def leaving(self, step):
  if step == int(os.environ["LEAVE_AFTER"]):
    self._end(shutdown.PREEMPTED)
  return asked(self, step)

shutdown.ShutdownSignal.asked = leaving
""",
)

# Processes, devices of each, width of the mesh's model axis.
PLACES = [(1, 8, 1), (2, 2, 2), (1, 1, 1), (4, 1, 1)]


def test_each_token_is_read_once_wherever_the_run_continues(
  config, replace, tmp_path, monkeypatch
):
  config = replace(config, sae__sites=(Site("resid", 1),))
  rows = len(corpus(config).train)
  steps = 2 * len(PLACES)
  assert rows > steps * 32  # less than one pass
  config = replace(config, tokens=steps * 512)
  straight = replace(config, workdir=str(tmp_path / "straight"))
  train(straight)

  seen = collections.Counter()
  moving = replace(config, workdir=str(tmp_path / "moving"))
  for turn, (count, devices, model) in enumerate(PLACES):
    first, last = 2 * turn, 2 * turn + 2
    leave = last if last < steps else -1  # evaluation counts on from there
    monkeypatch.setenv("LEAVE_AFTER", str(leave))
    run = replace(moving, mesh=MeshConfig(model=model))
    log = tmp_path / f"log {turn}"
    with pods.Pod(run, log, count, devices, script=LEAVING) as pod:
      ends = pod.wait()
    assert ends == [42 if last < steps else 0] * count, pod.said()
    seen += trained_on(log, count, first, last)
  assert seen == everything(config, steps)
  assert set(seen.values()) == {1}
  pods.assert_same(final(moving)[0], final(straight)[0], rtol=2e-2, atol=2e-4)
  losses = [
    [line["resid.1/64/l0_4/loss"] for line in pods.metrics(run)]
    for run in (moving, straight)
  ]
  np.testing.assert_allclose(*losses, rtol=1e-3)


def trained_on(log, count, first, last):
  """Rows of the buckets [first, last), each process's part once."""
  read = [noted(log, index) for index in range(count)]
  assert all(min(counts) == first for counts in read)
  seen = collections.Counter()
  for number in range(first, last):
    parts = {frozenset(counts[number].items()) for counts in read}
    seen += sum((collections.Counter(dict(p)) for p in parts), seen.__class__())
  return seen


def everything(config, steps):
  """Rows of all buckets, from one reader of its own."""
  batches = data.batches(corpus(config).train, 32)
  rows = [next(batches).tokens.tolist() for _ in range(steps)]
  return collections.Counter(tuple(row) for batch in rows for row in batch)
