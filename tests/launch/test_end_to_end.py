"""A real run on two workers is preempted and ends as if it had not been.

Each worker is a process of one `jax.distributed` program; `launch` is called
as a person calls it, in a checkout that has the real package. The machines are
lost with everything on them: the text is on a data disk, the weights are copied
by a script, and the run is in a folder that outlives them.
"""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

from jaxsae import overrides
from jaxsae.lm import Site
from tests import pods
from tests.launch.conftest import TWO, commit
from tests.launch.test_preemption import act_when

pytestmark = pytest.mark.slow

ROOT = pathlib.Path(__file__).parents[2]
TOY = '''"""A toy."""

import json
import pathlib

from jaxsae import overrides, runs, train
from jaxsae.train.config import TrainConfig

data = json.loads(pathlib.Path(__file__).with_suffix(".json").read_text())
config = overrides.from_json(TrainConfig, data)

if __name__ == "__main__":
  runs.main(config, __doc__)
'''


@pytest.fixture
def small(config, replace):
  """Two autoencoders, for long enough to be preempted in the midst."""
  return replace(config, sae__sites=(Site("resid", 1),), tokens=16 * 512)


@pytest.fixture
def checkout(tmp_path, small):
  """A checkout with what is needed, and the toy as an experiment."""
  root = tmp_path / "checkout"
  (root / "experiments").mkdir(parents=True)
  for name in ("launch", "jaxsae"):
    unneeded = shutil.ignore_patterns("__pycache__", "tiny")
    shutil.copytree(ROOT / name, root / name, ignore=unneeded)
  shutil.copy(ROOT / "requirements-tpu.txt", root)
  (root / "experiments" / "toy.py").write_text(TOY)
  data = json.dumps(overrides.to_json(small))
  (root / "experiments" / "toy.json").write_text(data)
  commit(root)
  return root


def test_a_preempted_run_ends_as_one_that_was_not(
  cloud, checkout, small, replace, tmp_path
):
  absent = {"PYTHONPATH", "JAX_COMPILATION_CACHE_DIR"}

  def launch(verb, *words, status=0):
    state = f"--state={tmp_path / 'state'}"
    done = subprocess.run(
      [sys.executable, "-m", "launch", verb, state, *words],
      cwd=checkout,
      env={k: v for k, v in os.environ.items() if k not in absent},
      capture_output=True,
      text=True,
    )
    said = done.stdout + done.stderr
    assert done.returncode == status, said
    return said

  undisturbed = replace(small, workdir=str(tmp_path / "undisturbed"))
  pods.run(undisturbed, tmp_path / "log", count=2, devices=1)
  cloud.add_disk("text", small.data.source)
  text, weights = tmp_path / "mnt" / "text", cloud.local / "weights"
  script = tmp_path / "fetch.sh"
  script.write_text(f"cp -r {small.lm} {weights}.$JAX_PROCESS_ID\n")
  where = (f"--topology={TWO}", "--zone=us-east5-a", "--project=my-project")
  launch("create", "toy", *where, f"--disk=text:{text}")
  launch("setup", "toy", f"--script={script}")
  # Without its text the run does not start, and nothing is lost by that.
  folder = tmp_path / "launched"
  run = ("run", "experiments/toy.py", f"--workdir={folder}")
  run = (*run, f"--lm={weights}.0", f"--data.source={text}")
  refused = launch(*run, "--data.source=/mnt/none", status=2)
  assert "--data.source=/mnt/none: " in refused and "worker 0" in refused
  launch(*run)

  checkpoints = folder / "checkpoints"
  begun = lambda: any(
    path.name.isdigit() and path.name != "0" for path in checkpoints.glob("*")
  )
  lost = []

  def preempt():
    cloud.preempt("toy")
    lost.extend([text.exists(), *cloud.local.iterdir()])

  thread = act_when(preempt, begun, tries=6000)
  fast = ("--poll=0.5", "--backoff=0.1", "--delete-when-done")
  out = launch("watch", *fast)
  thread.join()

  assert lost == [False]
  assert "toy is preempted" in out
  assert "starts after bucket 0" not in out.split("attempt 2")[1]
  assert f"done at step {small.steps}" in out and "toy is deleted" in out
  launched = replace(small, workdir=str(folder))
  pods.assert_same(pods.newest(launched)[0], pods.newest(undisturbed)[0])
  assert pods.metrics(launched) == pods.metrics(undisturbed)
  assert evaluation(launched) == evaluation(undisturbed)
  assert not text.exists() and not any(cloud.local.iterdir())
  with cloud.open() as data:
    assert data["nodes"] == {}


def evaluation(config):
  file = pathlib.Path(config.workdir) / "eval" / f"{config.steps}.json"
  return json.loads(file.read_text())
