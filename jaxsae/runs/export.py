"""Export of a run's autoencoders in a published format."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxsae import formats, overrides, pod
from jaxsae.errors import first_few
from jaxsae.formats import Published
from jaxsae.formats.gemma_scope import input_gain
from jaxsae.lm.weights import read_sizes
from jaxsae.runs import stages
from jaxsae.runs.known_figures import known_figures
from jaxsae.runs.open import Run


def export(run: Run, format: str, out: formats.Path) -> list[str]:
  """Writes the selected autoencoders in a published format, in a new folder.

  They are read one by one, in the leader, so any number of them fits in its
  memory. Neither text nor the language model is needed; transcoders, whose
  published form depends on it, need the latter.

  Args:
    run: the finished run.
    format: one of `jaxsae.formats.FORMATS`.
    out: the new folder; it must not exist.

  Returns:
    The paths of the files, relative to the folder.
  """
  measured = pod.on_leader(lambda: known_figures(run))
  gains = {name: _gain(run, name) for name in run.names}
  records = lambda: (
    _record(run, name, gains[name], measured) for name in run.names
  )
  writing = formats.writing(format, formats.Anew(records), out)
  # One call each: the other processes wait, and waiting has a time limit.
  step = lambda: pod.on_leader(lambda: next(writing, None))
  return [file for some in iter(step, None) for file in some]


def export_held(run: Run, format: str, out: formats.Path) -> list[str]:
  """Writes those of the selected autoencoders that a format can hold.

  Prints a line about the others, which are left out; what comes after an export
  can go on. For the arguments see `export`.

  Returns:
    The paths of the files, relative to the folder; none if there is no folder,
    for the format holds nothing of the run.
  """
  unheld = stages.unheld(run.config, read_sizes(run.config.lm), format)
  for reason, stacks in unheld.items():
    left = first_few(list(map(str, stacks)))
    pod.print_on_leader(f"not exported as {format}: {left}: {reason}")
  left_out = {
    name for some in unheld.values() for it in some for name in it.names
  }
  names = tuple(name for name in run.names if name not in left_out)
  if not names:
    return []
  return export(dataclasses.replace(run, names=names), format, out)


def _gain(run: Run, name: str) -> np.ndarray | None:
  """Returns the gain in a transcoder's input; needs no model for others."""
  taps = run.taps[name]
  return input_gain(run.lm, taps) if taps.kind == "transcoder" else None


def _record(
  run: Run,
  name: str,
  gain: np.ndarray | None,
  measured: Mapping[str, Mapping[str, Any]],
) -> Published:
  """Reads one autoencoder, with what the run knows about it."""
  taps, sae = run.read_on_host(name)
  recipe = overrides.to_json(run.config)
  return Published(
    sae,
    taps,
    gain,
    model=run.config.lm,
    data=recipe["data"],
    recipe=recipe,
    metrics={k: v for k, v in measured[name].items() if isinstance(v, float)},
  )
