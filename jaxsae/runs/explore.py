"""The report of a run: a survey of its latents, written as a page."""

import dataclasses
from collections.abc import Iterable

from etils import epath

from jaxsae import explore as explorer
from jaxsae import pod
from jaxsae.app import report as pages
from jaxsae.runs.evaluate import corpus_of, figures, held_out_batches
from jaxsae.runs.open import Run


def explore(run: Run) -> epath.Path:
  """Writes the report, `report/index.html`, and returns its path.

  All processes of a pod survey the latents; the leader writes.
  """
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
  report = dataclasses.replace(
    report,
    saes=[
      dataclasses.replace(sae, load=_load(run, sae.name)) for sae in report.saes
    ],
  )
  path = run.path / "report" / "index.html"
  pod.on_leader(lambda: pages.write(report, path))
  return path


def _load(run: Run, name: str) -> str:
  """Python that opens an autoencoder of a run, as the page shows it."""
  return "\n".join(
    [
      "import jaxsae",
      "from jaxsae import runs",
      "",
      f"run = runs.open_run({str(run.path)!r}, only=[{name!r}])",
      f"lm, (taps, sae) = run.lm, run.saes[{name!r}]",
    ]
  )


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
