"""The figures of a run's autoencoders that are on record already."""

import sys
from collections.abc import Mapping
from typing import Any

from jaxsae.errors import UserError
from jaxsae.runs.evaluate import recorded
from jaxsae.runs.open import Run
from jaxsae.train.monitor.lines import read_metrics


def known_figures(run: Run) -> dict[str, Mapping[str, Any]]:
  """Returns the figures of every selected autoencoder, by its name.

  Those of `eval/STEP.json`; where it is missing, those of training at the same
  step, which stderr tells. Only the leader of a pod calls it.

  Raises:
    UserError: neither is there.
  """
  found = recorded(run)
  if set(run.names) <= set(found):
    return {name: found[name] for name in run.names}
  print(
    f"note: {run.path} is not evaluated at step {run.step}, so L0 and FVU are"
    f" those of training; `jaxsae eval {run.path}` measures them",
    file=sys.stderr,
  )
  return _of_training(run)


def _of_training(run: Run) -> dict[str, Mapping[str, Any]]:
  """Returns the figures that metrics.jsonl has of the checkpoint's step."""
  found = [line for line in read_metrics(run.path) if line["step"] <= run.step]
  if not found:
    raise UserError(
      f"{run.path}/metrics.jsonl says nothing of step {run.step}; evaluate the"
      f" run first: `jaxsae eval {run.path}`"
    )
  return {
    name: {
      figure.removeprefix(f"{name}/"): value
      for figure, value in found[-1].items()
      if figure.startswith(f"{name}/") and isinstance(value, float)
    }
    for name in run.names
  }
