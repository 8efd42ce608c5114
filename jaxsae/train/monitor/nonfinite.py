"""What becomes of a run in which a number is not finite."""

import collections
from collections.abc import Sequence

import jax
import numpy as np
from etils import epath

from jaxsae import pod
from jaxsae.data import Batches
from jaxsae.errors import RunError, first_few
from jaxsae.train.config.run import TrainConfig
from jaxsae.train.process import workdir
from jaxsae.train.process.shutdown import resume_command
from jaxsae.train.sources import Bucket
from jaxsae.train.state import TrainState
from jaxsae.train.step import Metrics

RECORD = "not_finite.json"


class NonFiniteCheck:
  """Looks at every bucket that was trained on, one after the other.

  Args:
    config: the run's.
    path: its folder.
    batches: what it reads.
    documents: their names.
  """

  def __init__(
    self,
    config: TrainConfig,
    path: epath.Path,
    batches: Batches,
    documents: Sequence[str],
  ):
    self._config, self._path = config, path
    self._batches, self._documents = batches, documents
    self._skipped: collections.Counter[str] = collections.Counter()
    self._warned: set[str] = set()

  def observe(
    self, step: int, metrics: tuple[Metrics, ...], bucket: Bucket
  ) -> list[str]:
    """Waits for a step and sees whether it broke; returns warnings.

    Args:
      step: its number, from 1.
      metrics: what it left, on the devices.
      bucket: what it was trained on.

    Raises:
      RunError: it did, and that is to stop the run. What is known of it is in
        `not_finite.json` then.
    """
    broken = self._broken(metrics)
    if broken and self._config.not_finite == "stop":
      if pod.is_leader():
        self._record(step, broken, bucket)
      raise RunError(self._sentence(step, broken, bucket))
    news = [name for name in broken if name not in self._warned]
    self._warned |= broken.keys()
    return [self._warning(step, name, broken[name], bucket) for name in news]

  def skipped(self) -> dict[str, int]:
    """How many updates each autoencoder left out since the last call."""
    names = (name for stack in self._config.stacks for name in stack.names)
    counts = {name: self._skipped[name] for name in names}
    self._skipped.clear()
    return counts

  def _broken(self, metrics) -> dict[str, int]:
    """The first broken update of each autoencoder that has one."""
    seen = jax.device_get([(m.broken, m.skipped) for m in metrics])
    first = {}
    for stack, (broken, skipped) in zip(self._config.stacks, seen, strict=True):
      for name, at, count in zip(stack.names, broken, skipped, strict=True):
        if at >= 0:
          first[name] = int(at)
          self._skipped[name] += int(count)
    return first

  def _record(self, step, broken, bucket) -> None:
    what = self._batches.contents(bucket.before)
    names = [self._documents[i] for i in what["documents"]]
    record = {
      "step": step,
      "updates": self._config.updates_per_bucket,
      "autoencoders": broken,
      "data": bucket.before | what | {"documents": names},
    }
    workdir.write_json(self._path / RECORD, record)

  def _sentence(self, step, broken, bucket) -> str:
    found = [f"update {at} of {name}" for name, at in broken.items()]
    where = place(self._batches, bucket)
    return (
      f"step {step}: loss, gradient or weights were not finite in"
      f" {first_few(found)} (updates count from 0 to"
      f" {self._config.updates_per_bucket - 1}). {where}; its"
      f" rows and documents are in {self._path / RECORD}. Nothing was saved"
      " since; to go on from the newest checkpoint, or from the beginning if"
      " there is none, and leave such updates out:\n"
      f"  {resume_command('--not_finite=skip')}"
    )

  def _warning(self, step, name, at, bucket) -> str:
    return (
      f"warning: {name}: update {at} of step {step} was not finite and is left"
      f" out, as such updates will be (`skipped` in metrics.jsonl)."
      f" {place(self._batches, bucket)}."
    )


def place(batches: Batches, bucket: Bucket) -> str:
  """Where in the data a bucket was, as a sentence without its full stop."""
  number = bucket.before["next_batch"]
  part = batches.contents(bucket.before)["pass"]
  return f"The step read batch {number} of the data, in pass {part}"


def check_scales(config: TrainConfig, state: TrainState) -> None:
  """Raises RunError unless activations had a scale in the first bucket."""
  for stack, of_stack in zip(config.stacks, state.stacks, strict=True):
    ends = (
      (stack.site.input, of_stack.scale),
      (
        stack.site.output,
        of_stack.target_scale,
      ),
    )
    for site, scale in ends:
      if not np.all(np.isfinite(scale) & (np.asarray(scale) > 0)):
        raise RunError(
          f"the activations of {site} in {config.lm} have a mean squared norm"
          f" of {float(scale[0]) ** 2:g} in the first bucket, so nothing can be"
          " trained on them; its weights are damaged, or its numbers too large"
          " for their type."
        )
