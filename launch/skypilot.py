"""Writes a task for SkyPilot, which finds TPUs and recovers spot ones.

Fields: docs.skypilot.co/en/latest/reference/yaml-spec.html. The output
is JSON, which is also YAML. `sky jobs launch FILE` runs it.
"""

import shlex

from launch import run_outcome
from launch.errors import LaunchError
from launch.ledger import Run
from launch.request import Request

_RESTARTED = [run_outcome.PREEMPTED, *sorted(run_outcome.INFRASTRUCTURE)]
_SET_UP = """\
set -euo pipefail
command -v uv > /dev/null || python3 -m pip install --quiet --user uv==0.13.8
export PATH="$HOME/.local/bin:$PATH"
uv venv --quiet --clear --python 3.11 .venv
uv pip install --quiet --python .venv/bin/python \\
  --requirements requirements-tpu.txt"""


def check(request: Request) -> None:
  """Raises LaunchError if a task cannot fulfil the request."""
  if request.slices > 1:
    raise LaunchError(
      f"--slices={request.slices}: a task is one slice; write"
      " one task for each slice."
    )
  if request.disks:
    raise LaunchError(
      f"--disk={request.disks[0]}: SkyPilot attaches no disk that exists"
      " already to a TPU; mount a bucket with `file_mounts` in the task."
    )
  if request.capacity not in ("on-demand", "spot"):
    raise LaunchError(
      f"--capacity={request.capacity}: a task is on-demand or spot."
    )


def task(request: Request, run: Run) -> dict:
  """Returns the task, in which all hosts of one slice run one program.

  SkyPilot sends a TPU slice's commands to each of its hosts, where JAX finds
  the others by itself.
  """
  return {
    "name": request.name,
    "workdir": ".",
    "resources": {
      "infra": f"gcp/{request.zone.rpartition('-')[0]}/{request.zone}",
      "accelerators": f"tpu-{request.slice.accelerator_type}",
      "accelerator_args": {"runtime_version": request.slice.chip.runtime},
      "use_spot": request.capacity == "spot",
      "labels": {"jaxsae": request.name},
      # 42 asks to be started again, and the machines are not the run's fault;
      # anything else would fail again.
      "job_recovery": {
        "max_restarts_on_errors": 0,
        "recover_on_exit_codes": _RESTARTED,
      },
    },
    "envs": {"PYTHONUNBUFFERED": "1", "PYTHONPATH": ".", **run.env},
    "setup": _SET_UP,
    "run": shlex.join([".venv/bin/python", *run.argv]),
  }
