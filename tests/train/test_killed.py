"""A run that is killed and restarted ends like one that was not."""

import pathlib
import random
import time

import pytest

from experiments.soak import pods
from jaxsae.lm import Site
from tests.train.test_pod import final

KILLS = 3


@pytest.mark.parametrize("count, devices", [(1, 2), (2, 1)])
def test_killed_at_random_moments(config, replace, tmp_path, count, devices):
  """Start-up, steps, saves and the evaluation are all within reach."""
  config = replace(
    config, sae__sites=(Site("resid", 1),), checkpoint_every=1, tokens=12 * 512
  )
  whole = replace(config, workdir=str(tmp_path / "whole"))
  parts = replace(config, workdir=str(tmp_path / "parts"))
  begin = time.monotonic()
  pods.run(whole, tmp_path / "log", count, devices)
  longest = time.monotonic() - begin
  moments = random.Random(count)
  for kill in range(KILLS):
    with pods.Pod(parts, tmp_path / f"log {kill}", count, devices) as pod:
      time.sleep(moments.uniform(0.2, 1.0) * longest)
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
