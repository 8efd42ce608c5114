"""A checkpoint that cannot be written ends the run in one sentence."""

import dataclasses
import errno
import json
import os
import pathlib
import subprocess
import sys

import pytest
from orbax.checkpoint._src.path import atomicity

from jaxsae import overrides
from jaxsae.errors import RunError
from jaxsae.train.loop import train
from tests import pods
from tests.train.toys import small

pytestmark = pytest.mark.slow

# No file may grow beyond 20 kB once the first checkpoint is there: as if the
# disk were full, and as real.
FULL = """
import json, resource, sys
from jaxsae import overrides, train
from jaxsae.errors import exit_on_user_error
from jaxsae.train.checkpoint import checkpoints
from jaxsae.train.config import TrainConfig

config = overrides.from_json(TrainConfig, json.load(open(sys.argv[1])))
save = checkpoints.Checkpoints.save

def saving(self, state, data):
  if int(state.step) == 4:
    self.wait()
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
  save(self, state, data)

checkpoints.Checkpoints.save = saving
with exit_on_user_error():
  train.train(config)
"""


@pytest.fixture
def config(tmp_path, texts, lm_path, made):
  """The config of `made`, in a folder of its own."""
  alone = small(tmp_path, texts, lm_path)
  return dataclasses.replace(alone, sae=made.config.sae)


def names(config) -> list[str]:
  folder = pathlib.Path(config.workdir) / "checkpoints"
  return sorted(path.name for path in folder.iterdir())


def test_a_full_disk_is_one_sentence(config, made, tmp_path):
  (tmp_path / "config.json").write_text(json.dumps(overrides.to_json(config)))
  done = subprocess.run(
    [sys.executable, "-c", FULL, str(tmp_path / "config.json")],
    capture_output=True,
    text=True,
    timeout=240,
  )
  assert done.returncode == 1
  assert done.stderr.startswith("error: checkpoint 4 could not be written in ")
  assert done.stderr.count("\n") == 1
  assert "File too large" in done.stderr
  assert "Older checkpoints are intact" in done.stderr
  assert "2" in names(config) and "4" not in names(config)
  left = [name for name in names(config) if "tmp" in name]
  assert left  # or the next lines would show nothing
  pods.assert_same(train(config), made.states[6][0])
  assert names(config) == ["2", "4", "6"]


def failing_at(monkeypatch, step: int, code: int) -> None:
  """Lets the commit of that step fail, in Orbax's thread."""
  finalize = atomicity.AtomicRenameTemporaryPath.finalize

  async def failing(self, *args, **kwargs):
    if self.get_final().name == str(step):
      raise OSError(code, os.strerror(code))
    await finalize(self, *args, **kwargs)

  monkeypatch.setattr(atomicity.AtomicRenameTemporaryPath, "finalize", failing)


@pytest.mark.parametrize(
  ("step", "code"), [(4, errno.ENOSPC), (6, errno.EACCES)]
)
def test_a_failure_in_a_thread_ends_the_run(
  config, monkeypatch, capfd, step, code
):
  with monkeypatch.context() as patch:
    failing_at(patch, step, code)
    with pytest.raises(RunError) as stop:
      train(config)
  assert f"checkpoint {step} could not be written" in str(stop.value)
  assert os.strerror(code) in str(stop.value)
  assert "\n" not in str(stop.value)
  assert "Traceback" not in capfd.readouterr().err
  assert str(step - 2) in names(config) and str(step) not in names(config)
  train(config)
  assert names(config) == ["2", "4", "6"]
