"""The report of a run: a survey of its latents, written as a page."""

import dataclasses
import json
from collections.abc import Iterable
from typing import Annotated, Any

from etils import epath

from jaxsae import explore as explorer
from jaxsae import overrides, pod, process
from jaxsae.app import report as pages
from jaxsae.errors import UserError
from jaxsae.files import check_writable, remove_leftovers, whole_file
from jaxsae.overrides import Range
from jaxsae.runs.evaluate import figures, recorded
from jaxsae.runs.open import Run
from jaxsae.runs.text import corpus_of, held_out_batches, page_of


@dataclasses.dataclass(frozen=True)
class ReportConfig:
  """What a report shows of each latent."""

  # Top contexts of each latent, at most.
  contexts: Annotated[int, Range(1, 100)] = 8
  # Tokens in a context: two thirds before the strongest, a third after it.
  window: Annotated[int, Range(1, 1000)] = 32

  def __post_init__(self):
    overrides.check(self)

  def check_memory(self, widths: Iterable[int]) -> None:
    """Raises UserError if contexts of so many latents need too much memory."""
    kept = self.contexts + explorer.WEAKER
    each = explorer.kept_bytes(kept, self.window)
    needed, there = each * sum(widths), process.memory_limit()
    if needed > there:
      raise UserError(
        f"--contexts={self.contexts} of --window={self.window} tokens need"
        f" {needed / 1e9:.1f} GB of memory, and {there / 1e9:.1f} GB are there;"
        " give less of one of them, or some of the autoencoders by --only."
      )


def explore(run: Run, config: ReportConfig | None = None) -> epath.Path:
  """Writes the report, `report/index.html`, and returns its path.

  For a run that was opened with another text, `report/NAME.html`. All processes
  of a pod survey the latents; the leader writes.

  Args:
    run: the finished run.
    config: what the report shows.
  """
  config = config or ReportConfig()
  config.check_memory(run.widths.values())
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
    contexts=config.contexts,
    window=config.window,
  )
  saes = [dataclasses.replace(x, load=_load(run, x.name)) for x in report.saes]
  report = dataclasses.replace(report, saes=saes)
  pod.on_leader(lambda: pages.write(report, page_of(run)))
  pod.on_leader(lambda: _write_shown(run))
  return page_of(run)


def _check_place(run: Run) -> None:
  """Raises UserError if the page could not be written in the end."""
  remove_leftovers(page_of(run).parent)
  check_writable(page_of(run), "make room, or make it writable")


def report(run: Run) -> epath.Path:
  """Returns the path of the report; writes it only if it shows something else.

  It shows something else once the run was trained further or evaluated anew.
  """
  if pod.on_leader(lambda: _is_shown(run)):
    return page_of(run)
  return explore(run)


def _is_shown(run: Run) -> bool:
  """Returns whether the page is there and shows the run as it is now."""
  record = _shown_record(run)
  if not (page_of(run).exists() and record.exists()):
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
  return page_of(run).with_suffix(".json")


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
    "Text": run.text or config.data.source,
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
