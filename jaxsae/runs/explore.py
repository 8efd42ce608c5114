"""The report of a run: a survey of its latents, written as a page."""

import dataclasses
import json
from collections.abc import Iterable
from typing import Any

from etils import epath

from jaxsae import explore as explorer
from jaxsae import pod
from jaxsae.app import report as pages
from jaxsae.files import check_writable, remove_leftovers, whole_file
from jaxsae.runs.evaluate import (
  corpus_of,
  figures,
  held_out_batches,
  recorded,
)
from jaxsae.runs.open import Run


def explore(run: Run) -> epath.Path:
  """Writes the report, `report/index.html`, and returns its path.

  All processes of a pod survey the latents; the leader writes.
  """
  pod.on_leader(lambda: _check_place(run))
  measured = figures(run)
  for name, target in run.targets.items():
    measured[name]["target_l0"] = target
  corpus = corpus_of(run)
  report = explorer.survey(
    run.lm,
    run.saes,
    held_out_batches(run, corpus),
    corpus.documents,
    measured,
    title=run.path.name,
    run=_about(run),
  )
  saes = [dataclasses.replace(x, load=_load(run, x.name)) for x in report.saes]
  report = dataclasses.replace(report, saes=saes)
  pod.on_leader(lambda: pages.write(report, _page(run)))
  pod.on_leader(lambda: _write_shown(run))
  return _page(run)


def _check_place(run: Run) -> None:
  """Raises UserError if the page could not be written in the end."""
  remove_leftovers(_page(run).parent)
  check_writable(_page(run), "make room, or make it writable")


def report(run: Run) -> epath.Path:
  """Returns the path of the report; writes it only if it shows something else.

  It shows something else once the run was trained further or evaluated anew.
  """
  if pod.on_leader(lambda: _is_shown(run)):
    return _page(run)
  return explore(run)


def _page(run: Run) -> epath.Path:
  return run.path / "report" / "index.html"


def _is_shown(run: Run) -> bool:
  """Returns whether the page is there and shows the run as it is now."""
  record = _shown_record(run)
  if not (_page(run).exists() and record.exists()):
    return False
  try:
    return json.loads(record.read_text()) == _shown(run)
  except ValueError:
    return False  # it was damaged, and costs only time


def _write_shown(run: Run) -> None:
  with whole_file(_shown_record(run)) as partial:
    partial.write_text(json.dumps(_shown(run), indent=2) + "\n")


def _shown_record(run: Run) -> epath.Path:
  """Returns the path of the file that says what the page shows."""
  return _page(run).with_name("shown.json")


def _shown(run: Run) -> dict[str, Any]:
  """Returns what decides the content of the page, as JSON has it."""
  measured = recorded(run)
  return {
    "checkpoint": [run.step, dict(run.members.prints)],
    "figures": {name: measured.get(name) for name in run.names},
  }


def _load(run: Run, name: str) -> str:
  """Python that opens an autoencoder and the model where they are now."""
  fsdp = ", fsdp=True" if run.config.fsdp else ""
  return f"""import jaxsae
from jaxsae import runs

run = runs.open_run({str(run.path)!r}, only=[{name!r}])
taps, sae = run.saes[{name!r}]
lm = jaxsae.load_lm({run.config.lm!r}, mesh=run.mesh{fsdp})"""


def _about(run: Run) -> dict[str, str]:
  config, sweep = run.config, run.config.sae
  others = ", ".join(s.name or s.architecture for s in config.also)
  return {
    "Language model": config.lm,
    "Text": config.data.source,
    "Trained on": f"{run.step * config.bucket_tokens:,} tokens",
    "Autoencoders": f"{len(run.saes)}, width {_comma(sweep.widths)}",
    "Sites": _comma(sweep.sites),
    "Architecture": sweep.architecture,
    "Penalty": sweep.penalty,
    "Target L0": _comma(sweep.target_l0) or "none",
    "Bandwidth ε": f"{sweep.bandwidth:g}",
    "Learning rate": f"{sweep.optim.lr:g}",
    "Other sweeps": others or "none",
    "Update": f"{config.update_tokens:,} tokens",
    "Run": str(run.path),
  }


def _comma(values: Iterable[object]) -> str:
  return ", ".join(f"{v:g}" if isinstance(v, float) else str(v) for v in values)
