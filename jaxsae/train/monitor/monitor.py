"""The monitor of a run: inspects every finished step and reports on it."""

from collections.abc import Callable, Mapping

import jax
from etils import epath

from jaxsae import pod
from jaxsae.errors import RunError, StorageError
from jaxsae.train.config.run import TrainConfig
from jaxsae.train.metrics import Metrics
from jaxsae.train.monitor.check import ObservedRun
from jaxsae.train.monitor.checks import CHECKS
from jaxsae.train.monitor.idle import IdleTimer
from jaxsae.train.monitor.log import Log, NullLog
from jaxsae.train.process.compile_cache import StartupTime
from jaxsae.train.sources import Bucket, Source


class RunMonitor:
  """Follows the steps of a run: shows them to the checks and writes the log.

  Args:
    config: the run's configuration.
    path: the run's folder.
    step: the step after which the run goes on.
    counts: the number of documents and tokens in the run's data, by name.
    source: where the run's activations come from.
    check: called before anything is told, and so before anything is saved;
      raises unless the run still belongs to this process.
  """

  def __init__(
    self,
    config: TrainConfig,
    path: epath.Path,
    step: int,
    counts: Mapping[str, int],
    source: Source,
    check: Callable[[], None],
  ):
    self._check = check
    self._log = (
      Log(config, path, step, counts) if pod.is_leader() else NullLog()
    )
    self._idle_timer = IdleTimer()
    self._run = ObservedRun(config, path, source, self._log.newest)
    self._checks = [kind(self._run) for kind in CHECKS]
    self._start: Callable[[], StartupTime] | None = None
    self._unseen: list[tuple[int, Bucket, tuple[Metrics, ...]]] = []

  def __enter__(self):
    self._log.__enter__()
    return self

  def __exit__(self, kind, *_):
    self._idle_timer.close()
    # What a store does not take now, a run that resumes logs again.
    fails = kind is not None and issubclass(kind, StorageError)
    self._log.close(kept=not fails and self._is_ours())

  def time_first_step(self, start: Callable[[], StartupTime]) -> None:
    """Has the startup time told when the next step is over."""
    self._start = start

  def before_step(self, number: int, bucket: Bucket) -> None:
    """Notes that a step is about to be called.

    Args:
      number: the number of the step, from 1.
      bucket: the bucket that it trains on.
    """
    self._idle_timer.before_step(number, bucket.batch)

  def after_step(
    self, number: int, bucket: Bucket, metrics: tuple[Metrics, ...]
  ) -> None:
    """Notes the metrics that the step will return; doesn't wait for them."""
    self._idle_timer.after_step(metrics)
    self._unseen.append((number, bucket, metrics))

  def drain(self, until: int) -> None:
    """Waits for all steps up to this one, checks them and logs them.

    Raises:
      RunError: a check stops the run; or the run no longer belongs to this
        process.
    """
    while self._unseen and self._unseen[0][0] <= until:
      self._check()
      self._report(*self._unseen.pop(0))

  def flush(self) -> None:
    """Waits until every line that was logged will survive this process."""
    self._log.flush()

  def _is_ours(self) -> bool:
    """Returns whether the run still belongs to this process."""
    try:
      self._check()
    except RunError:
      return False
    return True

  def _report(
    self, number: int, bucket: Bucket, metrics: tuple[Metrics, ...]
  ) -> None:
    seen = _without_latents(metrics)
    if self._start is not None:
      self._log.begin(number, self._start())
      self._start = None
    for check in self._checks:
      for message in check.observe(number, seen, bucket):
        self._log.say(message)
    if self._run.is_logged(number):
      idle = self._idle_timer.idle(number)
      self._log.write(number, metrics, idle, self._counts())

  def _counts(self) -> dict[str, dict[str, int]]:
    """Returns the counts of all checks, by figure and autoencoder."""
    counts = {}
    for check in self._checks:
      counts |= check.counts()
    return counts


def _without_latents(metrics: tuple[Metrics, ...]) -> tuple[Metrics, ...]:
  """Fetches the metrics for checks from the devices, all in one go.

  Not those that hold a number for each latent, which are large.
  """
  small = tuple(
    of_stack.replace(tokens_since_fired=None) for of_stack in metrics
  )
  return jax.device_get(small)
