"""The progress of an evaluation, shown by the leader."""

import time
from collections.abc import Sequence

from rich.console import Console
from rich.progress import (
  BarColumn,
  MofNCompleteColumn,
  Progress,
  TextColumn,
  TimeRemainingColumn,
)

from jaxsae import evals, pod
from jaxsae.lm import Taps

_SECONDS = 10.0  # between two lines where there is no terminal


class EvalProgress:
  """A context that shows a bar on a terminal, else lines every ten seconds.

  Args:
    batches: number of batches of text.
    every: the taps of all autoencoders.
  """

  def __init__(self, batches: int, every: Sequence[Taps]):
    # Controls that are alike are measured once, but are not known before.
    of_controls = [taps for taps in every for _ in evals.CONTROLS]
    self._totals = {
      "sparsity": batches,
      "fidelity": evals.count_passes(every),
      "controls": evals.count_passes(of_controls),
    }
    self._console = Console()
    self._bars = Progress(
      TextColumn("{task.description}"),
      BarColumn(),
      MofNCompleteColumn(),
      TimeRemainingColumn(),
      console=self._console,
    )
    self._tasks = {
      phase: self._bars.add_task(_NAMES[phase], total=total, start=False)
      for phase, total in self._totals.items()
    }
    self._printed = time.monotonic()
    self._live = self._console.is_terminal and pod.is_leader()

  def __enter__(self):
    if self._live:
      self._bars.start()
    return self

  def __exit__(self, *_):
    if self._live:
      self._bars.stop()

  def __call__(self, phase: str, done: int) -> None:
    """Shows how much of a phase is done; see `evals.evaluate`."""
    if self._live:
      self._bars.start_task(self._tasks[phase])
      self._bars.update(self._tasks[phase], completed=done)
    elif time.monotonic() - self._printed > _SECONDS:
      self._printed = time.monotonic()
      of = f"{done}/{self._totals[phase]}"
      pod.print_on_leader(f"evaluating: {_NAMES[phase]} {of}")


_NAMES = {
  "sparsity": "batches of text",
  "fidelity": "passes for losses",
  "controls": "passes for controls",
}
