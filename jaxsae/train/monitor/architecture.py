"""Passes the figures of autoencoders to the alarms of their architecture."""

from collections.abc import Iterator

from jaxsae.sae import Alarm
from jaxsae.train.metrics import Metrics, rounded
from jaxsae.train.monitor.check import Check, ObservedRun
from jaxsae.train.sources import Bucket


class ArchitectureCheck(Check):
  """Asks every autoencoder's alarms at every step that is logged.

  Each alarm speaks once.
  """

  def __init__(self, run: ObservedRun):
    super().__init__(run)
    self._alarms: dict[str, list[Alarm]] = {
      name: list(stack.architecture.alarms(stack.width, member.target))
      for stack in run.config.stacks
      for name, member in zip(stack.names, stack.members, strict=True)
    }

  def observe(
    self, step: int, metrics: tuple[Metrics, ...], bucket: Bucket
  ) -> list[str]:
    """Returns the messages of alarms; see `Check.observe`."""
    del bucket
    if not self._run.is_logged(step):
      return []
    figures = zip(self._run.names, _figures(metrics), strict=True)
    return [
      f"warning: {name}: {message}"
      for name, of_one in figures
      for message in self._ask(name, step, of_one)
    ]

  def _ask(
    self, name: str, step: int, figures: dict[str, float]
  ) -> Iterator[str]:
    """Yields the messages about one autoencoder; drops alarms that spoke."""
    for alarm in list(self._alarms[name]):
      message = alarm.observe(step, figures)
      if message is not None:
        self._alarms[name].remove(alarm)
        yield message


def _figures(metrics: tuple[Metrics, ...]) -> Iterator[dict[str, float]]:
  """Yields L0 and the diagnosis of each autoencoder, as they are logged."""
  for of_stack in metrics:
    arrays = {"l0": of_stack.l0, **of_stack.figures}
    for i in range(len(of_stack.l0)):
      yield {name: rounded(float(x[i])) for name, x in arrays.items()}
