"""A run that is killed and restarted ends like one that was not."""

import pathlib
import time

import pytest

from jaxsae.lm import Site
from tests import pods
from tests.train.test_pod import final

pytestmark = pytest.mark.slow

# Of the time that a run takes, the first with all that it compiles; at random,
# and forty times, experiments/soak/kill.py does it.
EARLY, LATE = 0.35, 0.9


@pytest.mark.parametrize("count, devices", [(1, 2), (2, 1)])
def test_killed_early_and_late(config, replace, tmp_path, count, devices):
  """Start-up, steps, saves and the evaluation are all within reach."""
  config = replace(
    config, sae__sites=(Site("resid", 1),), checkpoint_every=1, tokens=12 * 512
  )
  whole = replace(config, workdir=str(tmp_path / "whole"))
  parts = replace(config, workdir=str(tmp_path / "parts"))
  begin = time.monotonic()
  pods.run(whole, tmp_path / "log", count, devices)
  longest = time.monotonic() - begin
  for moment in (EARLY, LATE):
    with pods.Pod(parts, tmp_path / f"log {moment}", count, devices) as pod:
      time.sleep(moment * longest)
      pod.kill()
  pods.run(parts, tmp_path / "log last", count, devices)
  pods.assert_same(final(parts), final(whole))
  assert pods.metrics(parts) == pods.metrics(whole)
  for kind in ("eval", "policy.json", "config.json"):
    assert read(parts, kind) == read(whole, kind).replace("whole", "parts")


def read(config, name) -> str:
  path = pathlib.Path(config.workdir) / name
  files = sorted(path.rglob("*")) if path.is_dir() else [path]
  return "\n".join(f"{file.name}\n{file.read_text()}" for file in files)
