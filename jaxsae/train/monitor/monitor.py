"""What is seen of every step when it is over, and told."""

from collections.abc import Callable

import jax
from etils import epath

from jaxsae import pod
from jaxsae.data import Batches, Corpus
from jaxsae.train.config.run import TrainConfig
from jaxsae.train.metrics import Metrics
from jaxsae.train.monitor.idle import IdleTimer
from jaxsae.train.monitor.log import Log, NullLog
from jaxsae.train.monitor.nonfinite import NonFiniteCheck
from jaxsae.train.monitor.spikes import WINDOW, LossSpikeCheck
from jaxsae.train.process.compile_cache import StartupTime
from jaxsae.train.sources import Bucket


class RunMonitor:
  """Sees every step when it is over: what it did, and how long it took.

  Args:
    config: the run's.
    path: its folder.
    step: after which it goes on.
    corpus: its text.
    batches: what it reads of it.
    check: called before anything is told, and so before anything is saved;
      raises unless the run is still this process's.
  """

  def __init__(
    self,
    config: TrainConfig,
    path: epath.Path,
    step: int,
    corpus: Corpus,
    batches: Batches,
    check: Callable[[], None],
  ):
    self._config, self._check = config, check
    self._log = (
      Log(config, path, step, corpus.counts) if pod.is_leader() else NullLog()
    )
    self._idle_timer = IdleTimer()
    self._nonfinite = NonFiniteCheck(config, path, batches, corpus.documents)
    self._spikes = LossSpikeCheck(config, batches, self._log.newest(WINDOW))
    self._start: Callable[[], StartupTime] | None = None
    self._unseen: list[tuple[int, Bucket, tuple[Metrics, ...]]] = []

  def __enter__(self):
    self._log.__enter__()
    return self

  def __exit__(self, *error):
    self._idle_timer.close()
    self._log.__exit__(*error)

  def time_first_step(self, start: Callable[[], StartupTime]) -> None:
    """Asks for the time of the start when the next step is over."""
    self._start = start

  def before_step(self, number: int, bucket: Bucket) -> None:
    """Takes note of a step just before it is called.

    Args:
      number: its own, from 1.
      bucket: what it trains on.
    """
    self._idle_timer.before_step(number, bucket.batch)

  def after_step(
    self, number: int, bucket: Bucket, metrics: tuple[Metrics, ...]
  ) -> None:
    """Takes note of what that step will leave."""
    self._idle_timer.after_step(metrics)
    self._unseen.append((number, bucket, metrics))

  def drain(self, until: int) -> None:
    """Waits for all steps up to this one, and tells of them.

    Raises:
      RunError: one of them broke, and that is to stop the run; or the run
        is no longer this process's.
    """
    while self._unseen and self._unseen[0][0] <= until:
      self._check()
      self._report(*self._unseen.pop(0))

  def _report(self, number, bucket, metrics) -> None:
    seen = _seen(metrics)
    if self._start is not None:
      self._log.begin(number, self._start())
      self._start = None
    warnings = self._nonfinite.observe(number, seen, bucket)
    warnings += self._spikes.observe(number, seen, bucket)
    for warning in warnings:
      self._log.say(warning)
    if number % self._config.log_every == 0 or number == self._config.steps:
      counts = {
        "skipped": self._nonfinite.skipped(),
        "spikes": self._spikes.counts(),
      }
      self._log.write(number, metrics, self._idle_timer.idle(number), counts)


def _seen(metrics: tuple[Metrics, ...]) -> tuple[Metrics, ...]:
  """What is looked at in every step, off the devices in one go."""
  names = (
    "l0",
    "fvu",
    "coefficient",
    "density_max",
    "tokens_since_fired",
    "figures",
  )
  left = dict.fromkeys(names)
  return jax.device_get(tuple(of_stack.replace(**left) for of_stack in metrics))
