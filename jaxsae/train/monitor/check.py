"""The base of checks, which look at every step of a run for trouble."""

import dataclasses
import functools
from collections.abc import Callable

from etils import epath

from jaxsae.train.config.run import TrainConfig
from jaxsae.train.metrics import Metrics
from jaxsae.train.sources import Bucket, Source


@dataclasses.dataclass(frozen=True)
class ObservedRun:
  """The run that checks look at.

  Attributes:
    config: the run's configuration.
    path: the run's folder.
    source: where its activations come from.
    newest_lines: returns the newest lines of metrics.jsonl, at most as many as
      it is asked for, oldest first.
  """

  config: TrainConfig
  path: epath.Path
  source: Source
  newest_lines: Callable[[int], list[str]]

  @functools.cached_property
  def names(self) -> list[str]:
    """The names of all autoencoders, stack by stack."""
    return [name for stack in self.config.stacks for name in stack.names]

  def is_logged(self, step: int) -> bool:
    """Returns whether a step has a line in metrics.jsonl."""
    return step % self.config.log_every == 0 or step == self.config.steps

  def place(self, bucket: Bucket) -> str:
    """Describes where a bucket lies in the data, as a clause."""
    return f"The step read {self.source.describe(bucket)}"


class Check:
  """A check looks at every step in turn and returns the messages to print.

  Every process of a run makes the same checks and shows them the same metrics.
  The leader alone prints and logs.
  """

  def __init__(self, run: ObservedRun):
    self._run = run

  def observe(
    self, step: int, metrics: tuple[Metrics, ...], bucket: Bucket
  ) -> list[str]:
    """Looks at one step that is over; returns messages, one line each.

    Args:
      step: the number of the step, from 1.
      metrics: the metrics of each stack, on the host; without arrays that hold
        a number for each latent, which are None.
      bucket: the bucket that the step trained on.

    Raises:
      RunError: the run must stop.
    """
    raise NotImplementedError

  def counts(self) -> dict[str, dict[str, int]]:
    """Returns what metrics.jsonl counts since the last call.

    Returns:
      Figure → autoencoder → the number of times that something happened. By
      default nothing is counted.
    """
    return {}
