"""Detects numbers that are not finite, and stops the run or warns."""

import collections
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

from jaxsae import pod
from jaxsae.errors import RunError, first_few
from jaxsae.lm import Site
from jaxsae.train.config.run import TrainConfig
from jaxsae.train.metrics import Metrics
from jaxsae.train.monitor.check import Check, ObservedRun
from jaxsae.train.process import workdir
from jaxsae.train.process.shutdown import resume_command
from jaxsae.train.sources import Bucket
from jaxsae.train.state import TrainState

RECORD = "not_finite.json"


class NonFiniteCheck(Check):
  """Stops the run at a number that is not finite, or warns that it is skipped.

  `not_finite` in the configuration decides which. Warns once for each
  autoencoder, and counts all updates that were skipped.
  """

  def __init__(self, run: ObservedRun):
    super().__init__(run)
    self._skipped: collections.Counter[str] = collections.Counter()
    self._warned: set[str] = set()

  def observe(
    self, step: int, metrics: tuple[Metrics, ...], bucket: Bucket
  ) -> list[str]:
    """Returns warnings about autoencoders that broke for the first time.

    Raises:
      RunError: one broke, and that is to stop the run. Before, what is known
        about it is written to `not_finite.json`.
    """
    broken = self._broken(metrics)
    if broken and self._run.config.not_finite == "stop":
      if pod.is_leader():
        self._record(step, broken, bucket)
      raise RunError(self._sentence(step, broken, bucket))
    news = [name for name in broken if name not in self._warned]
    self._warned |= broken.keys()
    return [self._warning(step, name, broken[name], bucket) for name in news]

  def counts(self) -> dict[str, dict[str, int]]:
    """Returns the number of updates that each autoencoder skipped."""
    counts = {name: self._skipped[name] for name in self._run.names}
    self._skipped.clear()
    return {"skipped": counts}

  def _broken(self, metrics: tuple[Metrics, ...]) -> dict[str, int]:
    """Returns the first broken update of each autoencoder that has one."""
    broken = np.concatenate([of_stack.broken for of_stack in metrics])
    skipped = np.concatenate([of_stack.skipped for of_stack in metrics])
    first = {}
    for name, at, count in zip(self._run.names, broken, skipped, strict=True):
      if at >= 0:
        first[name] = int(at)
        self._skipped[name] += int(count)
    return first

  def _record(self, step: int, broken: dict[str, int], bucket: Bucket) -> None:
    record: dict[str, Any] = {
      "step": step,
      "updates": self._run.config.updates_per_bucket,
      "autoencoders": broken,
      "data": self._run.source.provenance(bucket),
    }
    workdir.write_json(self._run.path / RECORD, record)

  def _sentence(self, step, broken, bucket) -> str:
    found = [f"update {at} of {name}" for name, at in broken.items()]
    return (
      f"step {step}: loss, gradient or weights were not finite in"
      f" {first_few(found)} (updates count from 0 to"
      f" {self._run.config.updates_per_bucket - 1})."
      f" {self._run.place(bucket)}; its"
      f" rows and documents are in {self._run.path / RECORD}. Nothing was saved"
      " since; to go on from the newest checkpoint, or from the beginning if"
      " there is none, and leave such updates out:\n"
      f"  {resume_command('--not_finite=skip')}"
    )

  def _warning(self, step, name, at, bucket) -> str:
    return (
      f"warning: {name}: update {at} of step {step} was not finite and is left"
      f" out, as such updates will be (`skipped` in metrics.jsonl)."
      f" {self._run.place(bucket)}."
    )


def check_scales(config: TrainConfig, state: TrainState) -> None:
  """Raises RunError unless activations had a scale in the first bucket."""
  for stack, of_stack in zip(config.stacks, state.stacks, strict=True):
    for site, scale in (
      *_by_site(stack.taps.reads, of_stack.scale),
      *_by_site(stack.taps.writes, of_stack.target_scale),
    ):
      if not np.all(np.isfinite(scale) & (scale > 0)):
        raise RunError(
          f"the activations of {site} in {config.lm} have a mean squared norm"
          f" of {float(scale[0]) ** 2:g} in the first bucket, so nothing can be"
          " trained on them; its weights are damaged, or its numbers too large"
          " for their type."
        )


def _by_site(
  sites: Sequence[Site], scale: jax.Array
) -> Iterator[tuple[Site, np.ndarray]]:
  """Yields every site with its scale for each member, [S]."""
  return zip(sites, np.asarray(scale).reshape(-1, len(sites)).T, strict=True)
