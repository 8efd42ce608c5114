"""Detects a loss that jumps, and tells on which data it did.

A loss is compared with those of the buckets before it. So a rise that lasts for
many buckets, like that of λ in its warm-up, is no jump: along a straight line
the newest value is less than two standard deviations above the mean. A loss
that jumped counts among the others from then on, so one that stays up after a
jump is told of a few times and no more.
"""

import collections
import json

import numpy as np

from jaxsae.errors import first_few
from jaxsae.train.metrics import Metrics, rounded
from jaxsae.train.monitor.check import Check, ObservedRun
from jaxsae.train.sources import Bucket

WINDOW, LEAST = 128, 32  # losses to compare with, at most and at least
FAR = 6.0  # standard deviations
FLOOR = 1e-3  # the least standard deviation, relative to the mean


class LossSpikeCheck(Check):
  """Warns of a loss that is far above the losses of the buckets before.

  A run that is resumed finds those in the lines of metrics.jsonl; where each
  bucket has a line, they are all that it would have seen.
  """

  def __init__(self, run: ObservedRun):
    super().__init__(run)
    lines = run.newest_lines(WINDOW)
    self._losses = collections.deque(map(self._logged, lines), WINDOW)
    self._counts: collections.Counter[str] = collections.Counter()

  def observe(
    self, step: int, metrics: tuple[Metrics, ...], bucket: Bucket
  ) -> list[str]:
    """Returns one warning if any loss jumped; see `Check.observe`."""
    losses = np.concatenate([of_stack.loss for of_stack in metrics])
    losses = np.array([rounded(loss) for loss in losses])  # as in the log
    far = self._deviations(losses)
    self._losses.append(losses)
    found = [i for i in np.argsort(-far) if far[i] > FAR]
    self._counts.update(self._run.names[i] for i in found)
    jumps = [(self._run.names[i], losses[i], far[i]) for i in found]
    return [self._warning(step, jumps, bucket)] if jumps else []

  def counts(self) -> dict[str, dict[str, int]]:
    """Returns how often the loss of each autoencoder jumped."""
    counts = {name: self._counts[name] for name in self._run.names}
    self._counts.clear()
    return {"spikes": counts}

  def _logged(self, line: str) -> np.ndarray:
    values = json.loads(line)
    found = [values.get(f"{name}/loss") for name in self._run.names]
    return np.array(found, float)  # null, a loss that is not finite, is NaN

  def _deviations(self, losses: np.ndarray) -> np.ndarray:
    """Returns how far losses are above their mean, [S]; 0 if unknown.

    In standard deviations of the losses of the buckets before.
    """
    if len(self._losses) < LEAST:
      return np.zeros(len(losses))
    before = np.stack(self._losses)
    finite = np.isfinite(before)
    count = np.maximum(finite.sum(axis=0), 1)
    mean = np.where(finite, before, 0).sum(axis=0) / count
    apart = np.square(np.where(finite, before - mean, 0)).sum(axis=0) / count
    deviation = np.maximum(np.sqrt(apart), FLOOR * np.abs(mean))
    known = (count >= LEAST) & np.isfinite(losses) & (deviation > 0)
    above = np.where(known, losses - mean, 0)
    return above / np.where(known, deviation, 1)

  def _warning(self, step, jumps, bucket) -> str:
    told = [
      f"{loss:g} of {name} ({far:.1f} standard deviations above the mean of"
      " those before)"
      for name, loss, far in jumps
    ]
    return (
      f"warning: step {step}: the loss jumped to {first_few(told)} (`spikes`"
      f" in metrics.jsonl). {self._run.place(bucket)}."
    )
