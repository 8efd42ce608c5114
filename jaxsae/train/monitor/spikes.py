"""Tells when a loss has jumped, and on which data.

A loss is compared with those of the buckets before it, so a rise that goes on
for many of them, as that of λ in its warm-up, is none: along a straight line
the newest value is less than two standard deviations above the mean. What
jumped counts with the others from then on, so a loss that stays where it is
after a jump is told of a few times and no more.
"""

import collections
import json
from collections.abc import Iterable

import numpy as np

from jaxsae.data import Batches
from jaxsae.errors import first_few
from jaxsae.train.config.run import TrainConfig
from jaxsae.train.metrics import Metrics, rounded
from jaxsae.train.monitor.nonfinite import place
from jaxsae.train.sources import Bucket

WINDOW, LEAST = 128, 32  # losses to compare with, at most and at least
FAR = 6.0  # standard deviations
FLOOR = 1e-3  # of the mean: what a standard deviation is at least taken to be


class LossSpikeCheck:
  """Looks at every bucket that was trained on, one after the other.

  Args:
    config: the run's.
    batches: what it reads.
    lines: of metrics.jsonl, of the buckets before. A run that is gone on with
      finds its losses there; where each bucket has a line, they are all it
      would have seen.
  """

  def __init__(
    self, config: TrainConfig, batches: Batches, lines: Iterable[str]
  ):
    self._batches = batches
    self._names = [name for stack in config.stacks for name in stack.names]
    self._losses = collections.deque(map(self._logged, lines), WINDOW)
    self._counts: collections.Counter[str] = collections.Counter()

  def observe(
    self, step: int, metrics: tuple[Metrics, ...], bucket: Bucket
  ) -> list[str]:
    """Sees whether losses jumped; returns a warning if any did.

    Args:
      step: its number, from 1.
      metrics: what it left.
      bucket: what it was trained on.
    """
    losses = np.concatenate([np.asarray(m.loss) for m in metrics])
    losses = np.array([rounded(loss) for loss in losses])  # as in the log
    far = self._deviations(losses)
    self._losses.append(losses)
    found = [i for i in np.argsort(-far) if far[i] > FAR]
    self._counts.update(self._names[i] for i in found)
    told = [(self._names[i], losses[i], far[i]) for i in found]
    return [self._warning(step, told, bucket)] if told else []

  def counts(self) -> dict[str, int]:
    """How often the loss of each autoencoder jumped since the last call."""
    counts = {name: self._counts[name] for name in self._names}
    self._counts.clear()
    return counts

  def _logged(self, line: str) -> np.ndarray:
    values = json.loads(line)
    found = [values.get(f"{name}/loss") for name in self._names]
    return np.array(found, float)  # null, what was not finite, is not a number

  def _deviations(self, losses: np.ndarray) -> np.ndarray:
    """How many standard deviations above their mean, [S]; 0 if unknown."""
    if len(self._losses) < LEAST:
      return np.zeros(len(losses))
    before = np.stack(self._losses)
    sound = np.isfinite(before)
    count = np.maximum(sound.sum(axis=0), 1)
    mean = np.where(sound, before, 0).sum(axis=0) / count
    apart = np.square(np.where(sound, before - mean, 0)).sum(axis=0) / count
    deviation = np.maximum(np.sqrt(apart), FLOOR * np.abs(mean))
    known = (count >= LEAST) & np.isfinite(losses) & (deviation > 0)
    above = np.where(known, losses - mean, 0)
    return above / np.where(known, deviation, 1)

  def _warning(self, step, told, bucket) -> str:
    jumps = [
      f"{loss:g} of {name} ({far:.1f} standard deviations above the mean of"
      " those before)"
      for name, loss, far in told
    ]
    return (
      f"warning: step {step}: the loss jumped to {first_few(jumps)} (`spikes`"
      f" in metrics.jsonl). {place(self._batches, bucket)}."
    )
