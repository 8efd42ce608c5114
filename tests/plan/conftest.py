"""Fixtures: toy experiments, and `jaxsae plan` as a process."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]

EXPERIMENT = '''"""A toy."""

from jaxsae import train
from jaxsae.data import DataConfig
from jaxsae.lm import Site

config = train.TrainConfig(
  lm={lm!r},
  tokens=1_000_000,
  data=DataConfig(source="", context=16),
  sae=train.SweepConfig(
    sites=(Site("resid", 1),), widths=(128,), sparsity_coefficient=(1e-4, 2e-4)
  ),
  bucket=train.BucketConfig(microbatches=2, rows=16, update_tokens=128),
)

if __name__ == "__main__":
  raise SystemExit("a plan must not train")
'''

SWEEP = """

import dataclasses

single = config
del config


def configs():
  at = lambda layer: dataclasses.replace(
    single.sae, sites=(Site("resid", layer),)
  )
  return {{
    "low": dataclasses.replace(single, sae=at(0)),
    "high": dataclasses.replace(single, sae=at(1)),
    "wide": dataclasses.replace(
      single, sae=dataclasses.replace(single.sae, widths=(256,))
    ),
  }}
"""


@pytest.fixture
def experiment(tmp_path, lm_path):
  """The path of a file with one run, which trains two autoencoders."""
  path = tmp_path / "toy.py"
  path.write_text(EXPERIMENT.format(lm=str(lm_path)))
  return path


@pytest.fixture
def sweep(tmp_path, lm_path):
  """The path of a file with three runs, two of them alike but for a layer."""
  path = tmp_path / "toys.py"
  head, _, tail = EXPERIMENT.partition("\nif __name__")
  text = f"{head}{SWEEP}\nif __name__{tail}"
  path.write_text(text.format(lm=str(lm_path)))
  return path


@pytest.fixture
def plan(tmp_path):
  """Runs `jaxsae plan`; returns status, stdout, stderr and the JSON."""
  if sys.platform != "linux":
    pytest.skip("the TPU's compiler exists for Linux only")
  file = tmp_path / "plan.json"

  def run(*argv):
    file.unlink(missing_ok=True)
    done = subprocess.run(
      [sys.executable, "-c", "from jaxsae.cli import main; main()", "plan"]
      + [str(word) for word in argv]
      + [f"--json={file}"] * bool(argv),
      capture_output=True,
      text=True,
      cwd=ROOT,
      env=os.environ | {"COLUMNS": "80"},
    )
    content = json.loads(file.read_text()) if file.exists() else None
    return done.returncode, done.stdout, done.stderr, content

  return run
