"""The log of a run: metrics.jsonl, TensorBoard and a table on the screen."""

import contextlib
import json
import math
import time
from collections.abc import Mapping

import jax
from etils import epath
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from jaxsae import tables
from jaxsae.train.config.run import TrainConfig
from jaxsae.train.metrics import Metrics, rounded
from jaxsae.train.monitor.board import Board
from jaxsae.train.monitor.lines import join, newest_lines, open_lines
from jaxsae.train.monitor.uploads import Uploads
from jaxsae.train.process.compile_cache import StartupTime

# Seconds between two writes to a store. On a disk each line is written at once.
FLUSH_EVERY = 30.0

Values = dict[str, dict[str, float]]  # autoencoder → figure → value


class Log:
  """Writes metrics one line at a time, and shows the newest on the screen."""

  def __init__(
    self,
    config: TrainConfig,
    path: epath.Path,
    step: int,
    counts: Mapping[str, int],
  ):
    """Opens the log after `step`; drops lines of later, unfinished steps.

    Args:
      config: the run's configuration.
      path: the run's folder.
      step: the step after which the run goes on.
      counts: the counts of its text, written in every line as `data/NAME`.
    """
    self._config, self._path = config, path
    self._data = {f"data/{name}": count for name, count in counts.items()}
    self._first, self._started = step, time.perf_counter()
    self._newest, self._flushed = step, time.monotonic()
    self._uploads = Uploads()
    self._lines = open_lines(path, step, self._uploads)
    self._board = Board(path, step, self._uploads)
    self._screen = _Screen(config)

  def __enter__(self):
    self._screen.start()
    return self

  def close(self, kept: bool) -> None:
    """Closes the log.

    Args:
      kept: whether what was not yet written to a store shall be.
    """
    self._screen.stop()
    with contextlib.ExitStack() as ending:
      ending.callback(self._uploads.close)
      ending.callback(self._board.close)
      ending.callback(self._lines.close)
      if kept:
        self.flush()
      if kept and self._newest == self._config.steps:
        join(self._path)

  def write(
    self,
    step: int,
    metrics: tuple[Metrics, ...],
    idle: float,
    counts: Mapping[str, Mapping[str, int]],
  ) -> None:
    """Fetches the metrics of a step from the devices, writes and shows them.

    Args:
      step: the number of the step.
      metrics: the metrics of each stack.
      idle: share of the time since the last line in which the devices waited.
      counts: figure → autoencoder → the number of times that something happened
        since the last line.
    """
    values = figures(self._config, metrics)
    for figure, of_each in counts.items():
      for name, count in of_each.items():
        values[name][figure] = count
    tokens = step * self._config.bucket_tokens
    speed = self._speed(step)
    flat = {"tokens_per_second": round(speed), "idle": float(f"{idle:.3g}")}
    flat |= {
      f"{name}/{figure}": value
      for name, of_one in values.items()
      for figure, value in of_one.items()
    }
    line = {"step": step, "tokens": tokens}
    line |= self._data
    line |= {k: v if math.isfinite(v) else None for k, v in flat.items()}
    self._lines.write(step, json.dumps(line))
    for name, value in flat.items():
      self._board.add(name, value, step)
    self._newest = step
    self._screen.show(step, speed, idle, values)
    if time.monotonic() - self._flushed > FLUSH_EVERY and (
      self._uploads.is_idle()
    ):
      self._start_flush()

  def flush(self) -> None:
    """Waits until all lines are written.

    Raises:
      StorageError: the run is in a store, which does not answer.
    """
    self._start_flush()
    self._uploads.wait()

  def newest(self, count: int) -> list[str]:
    """Returns the newest lines of metrics.jsonl, oldest first."""
    return newest_lines(self._path, count)

  def begin(self, step: int, start: StartupTime) -> None:
    """Tells how long it took this process to reach its first step."""
    self._board.add("seconds_to_first_step", start.seconds, step)
    self.say(str(start))

  def say(self, line: str) -> None:
    """Shows a line that stays on the screen."""
    self._screen.say(line)

  def _start_flush(self) -> None:
    self._uploads.wait()
    self._lines.flush()
    self._board.flush()
    self._flushed = time.monotonic()

  def _speed(self, step: int) -> float:
    """Returns tokens per second since this process began to train."""
    seconds = time.perf_counter() - self._started
    return (step - self._first) * self._config.bucket_tokens / seconds


class NullLog:
  """The log of a process that is not the leader: it writes nothing."""

  def __enter__(self):
    return self

  def close(self, kept: bool) -> None:
    pass

  def flush(self) -> None:
    pass

  def newest(self, count: int) -> list[str]:
    return []

  def begin(self, *_) -> None:
    pass

  def write(self, *_) -> None:
    pass

  def say(self, line: str) -> None:
    pass


def figures(config: TrainConfig, metrics: tuple[Metrics, ...]) -> Values:
  """Returns the metrics of every autoencoder by name, as plain numbers."""
  # All at once, and computed on the host: an operation on the devices would
  # wait for the step that is under way.
  metrics = jax.device_get(metrics)
  values = {}
  for stack, of_stack in zip(config.stacks, metrics, strict=True):
    arrays = {
      "l0": of_stack.l0,
      "fvu": of_stack.fvu,
      "loss": of_stack.loss,
      "coefficient": of_stack.coefficient,
      "density_max": of_stack.density_max,
      "dead": (of_stack.tokens_since_fired >= config.dead_after).mean(axis=-1),
      **of_stack.figures,
    }
    for i, name in enumerate(stack.names):
      values[name] = {
        figure: rounded(float(x[i])) for figure, x in arrays.items()
      }
  return values


class _Screen:
  """The screen: a live table on a terminal, else lines every ten seconds."""

  def __init__(self, config: TrainConfig):
    self._config = config
    self._console = Console(stderr=False)
    self._progress = Progress(
      TextColumn("training"),
      BarColumn(None),
      TextColumn("{task.percentage:3.0f}%  {task.fields[speed]}"),
      console=self._console,
    )
    self._task = self._progress.add_task("", total=config.steps, speed="")
    self._live = Live(self._progress, console=self._console)
    self._printed = -float("inf")

  def start(self):
    if self._console.is_terminal:
      self._live.start()

  def stop(self):
    if self._console.is_terminal:
      self._live.stop()

  def say(self, line: str) -> None:
    """Prints a line that stays, above the table."""
    self._console.print(line, highlight=False, markup=False, soft_wrap=True)

  def show(self, step: int, speed: float, idle: float, values: Values) -> None:
    left = (self._config.steps - step) * self._config.bucket_tokens / speed
    pace = f"{speed:,.0f} tokens/s  idle {idle:.0%}  {_clock(left)} left"
    if self._console.is_terminal:
      self._progress.update(self._task, completed=step, speed=pace)
      self._live.update(Group(self._progress, _table(values)))
    elif step == self._config.steps or time.monotonic() - self._printed > 10:
      self._printed = time.monotonic()
      print(_lines(self._config, step, pace, values), flush=True)


def _table(values: Values) -> Table:
  table = Table("autoencoder", box=None, pad_edge=False)
  for head in ("L0", "FVU", "dead", "in window", "λ's pull", "mean θ"):
    table.add_column(head, justify="right")
  for name, v in values.items():
    table.add_row(
      name,
      f"{v['l0']:.1f}",
      f"{v['fvu']:.3f}",
      f"{v['dead']:.1%}",
      _shown(v, "in_window", ".2%"),
      _shown(v, "pull", ".0%"),
      _shown(v, "threshold", ".4f"),
    )
  return tables.fit(table)


def _shown(values: dict[str, float], name: str, form: str) -> str:
  """Formats a figure that not every architecture has."""
  return format(values[name], form) if name in values else "-"


def _lines(config: TrainConfig, step: int, pace: str, values: Values) -> str:
  """Formats the pace, then a line for each stack with its members in turn."""
  lines = [f"{step}/{config.steps}  {pace}"]
  for stack in config.stacks:
    of_stack = [values[name] for name in stack.names]
    l0 = "  ".join(f"{v['l0']:6.1f}" for v in of_stack)
    fvu = "  ".join(f"{v['fvu']:.3f}" for v in of_stack)
    lines.append(f"  {stack!s:16s} L0 {l0}   FVU {fvu}")
  return "\n".join(lines)


def _clock(seconds: float) -> str:
  minutes, seconds = divmod(int(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  if hours:
    return f"{hours} h {minutes:02d} min"
  return f"{minutes}:{seconds:02d} min"
