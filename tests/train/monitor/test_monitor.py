"""The loop around a step that is no more than its duration."""

import json
import threading
import time
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsae import mesh as meshes
from jaxsae.errors import RunError
from jaxsae.train import loop
from jaxsae.train.metrics import Metrics
from jaxsae.train.monitor import monitor as monitors
from jaxsae.train.monitor.check import Check
from jaxsae.train.monitor.checks import CHECKS
from jaxsae.train.monitor.monitor import RunMonitor
from jaxsae.train.process.shutdown import ShutdownSignal
from jaxsae.train.sources import TextSource
from jaxsae.train.state import TrainState
from tests.train.test_sources import Counting

STEPS = 6


@pytest.fixture
def run(config, replace, tmp_path, monkeypatch):
  """`run(turns=…, reading=…, …)` is what happened, in order, with times."""

  def of(turns=1, reading=0.0, broken_at=None, **settings):
    told = Told(replace(config, **settings), tmp_path)
    batches = Slow(told, reading)
    monkeypatch.setattr(
      loop, "compile_step", lambda *_: told.step(turns, broken_at)
    )
    # This state is on no mesh, so it has no replicas.
    monkeypatch.setattr(loop.replicas, "check", lambda *_: None)
    state = TrainState(jnp.array(0), jax.random.key(0), ())
    source = TextSource(told.config, told.mesh, None, batches, ["one"])
    with RunMonitor(
      told.config, tmp_path, 0, {}, source, told.check
    ) as monitor:
      told.follow(monitor)
      loop._run(
        types.SimpleNamespace(
          config=told.config, mesh=told.mesh, source=source, groups=()
        ),
        state,
        told,
        monitor,
        ShutdownSignal(),
      )
    return told

  return of


class Told:
  """Takes part in the loop, and notes what it is asked for."""

  def __init__(self, config, path):
    self.config, self._path = config, path
    self.mesh = meshes.make(config.mesh)
    self.events: list[str] = []

  def step(self, turns, broken_at):
    """A step that keeps all devices busy for so many turns."""
    layout = meshes.shard(self.mesh, "data", None)
    x = jax.device_put(np.ones((8, 256), np.float32), layout)
    sizes = [len(stack.names) for stack in self.config.stacks]

    def work(x, broken):
      x = jax.lax.fori_loop(0, turns, lambda _, y: jnp.cos(y), x)
      return tuple(metrics(size, jnp.mean(x), broken) for size in sizes)

    whole = jax.device_put(np.int32(-1), meshes.shard(self.mesh))
    compiled = jax.jit(work).lower(x, whole).compile()
    jax.block_until_ready(compiled(x, whole))

    def step(state, lm, batch):
      number = int(batch.tokens[0, 0, 0]) + 1
      self.events.append(f"step {number}")
      broken = 0 if number == broken_at else -1
      broken = jax.device_put(np.int32(broken), whole.sharding)
      return state.replace(step=number), compiled(x, broken)

    return step

  def follow(self, monitor):
    drain = monitor.drain

    def noting(until):
      drain(until)
      self.events.append(f"seen {until}")

    monitor.drain = noting

  def save(self, state, position):
    self.events.append(f"save {int(state.step)}")
    assert position == {"next_batch": int(state.step)}

  def check(self):
    self.events.append("check")

  def wait(self):
    pass

  def idle(self):
    return [line["idle"] for line in self.lines()]

  def lines(self):
    text = (self._path / "metrics.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


class Slow(Counting):
  """Takes its time to read."""

  def __init__(self, told, seconds):
    super().__init__(told.config)
    self._told, self._seconds = told, seconds

  def __next__(self):
    time.sleep(self._seconds)
    self._told.events.append(f"read {self.number + 1}")
    return super().__next__()

  def contents(self, state):
    return {"pass": 1, "rows": [0], "documents": [0]}


def metrics(size, value, broken):
  one = jnp.full(size, value)
  return Metrics(
    loss=one,
    l0=one,
    fvu=one,
    coefficient=one,
    density_max=one,
    tokens_since_fired=jnp.zeros((size, 4), jnp.int32),
    broken=jnp.full(size, broken),
    skipped=jnp.full(size, broken + 1),
    figures=dict.fromkeys(("in_window", "moved"), one),
  )


def before(events, first, second):
  return events.index(first) < events.index(second)


@pytest.mark.parametrize("log_every", [1, 1000])
def test_a_bucket_is_read_during_the_step_before_and_none_pile_up(
  run, log_every
):
  events = run(log_every=log_every, checkpoint_every=1000).events
  for n in range(2, STEPS + 1):
    assert before(events, f"step {n - 1}", f"read {n}")  # while it is busy
    assert before(events, f"step {n}", f"seen {n - 1}")  # one step late
  for n in range(3, STEPS + 1):
    assert before(events, f"seen {n - 2}", f"step {n}")  # and no later
  assert f"read {STEPS + 1}" not in events


def test_every_save_comes_after_a_look_at_its_step(run):
  events = run(checkpoint_every=2).events
  for n in (2, 4, 6):
    assert before(events, f"seen {n}", f"save {n}")
    assert events.index(f"save {n}") - events.index(f"seen {n}") == 1


@pytest.mark.parametrize("every", [1, 2, 3, 6])
def test_nothing_broken_is_saved(config, replace, run, monkeypatch, every):
  saved = []
  monkeypatch.setattr(Told, "save", lambda _, state, __: saved.append(state))
  with pytest.raises(RunError, match="step 4"):
    run(broken_at=4, checkpoint_every=every)
  assert all(int(state.step) < 4 for state in saved)
  assert not [t for t in threading.enumerate() if "idle_timer" in t.name]


class Prime(Check):
  """A check of a few lines."""

  def __init__(self, run):
    super().__init__(run)
    self._found = 0

  def observe(self, step, metrics, bucket):
    if step not in (2, 3, 5):
      return []
    self._found += 1
    loss = np.mean([of_stack.loss for of_stack in metrics])
    batch = bucket.before["next_batch"]
    return [f"warning: step {step} is prime; loss {loss:g}, batch {batch}"]

  def counts(self):
    found, self._found = self._found, 0
    return {"primes": dict.fromkeys(self._run.names, found)}


def test_a_check_on_the_list_is_asked_and_heard(run, monkeypatch, capsys):
  monkeypatch.setattr(monitors, "CHECKS", (*CHECKS, Prime))
  told = run(log_every=2)
  said = [x for x in capsys.readouterr().out.splitlines() if "prime" in x]
  assert len(said) == 3
  assert [int(line.split("step ")[1][0]) for line in said] == [2, 3, 5]
  name = told.config.stacks[0].names[0]
  assert [line[f"{name}/primes"] for line in told.lines()] == [1, 1, 1]
  assert f"{name}/skipped" in told.lines()[0]  # and others go on


def test_the_log_warns_once_of_each_autoencoder(run, monkeypatch, capsys):
  made = metrics
  empty = {"in_window": jnp.full(2, 1e-7), "moved": jnp.ones(2)}
  monkeypatch.setitem(
    globals(), "metrics", lambda *args: made(*args).replace(figures=empty)
  )
  told = run(log_every=1)
  lines = capsys.readouterr().out.splitlines()
  names = [name for stack in told.config.stacks for name in stack.names]
  warned = [x.split(":")[1].strip() for x in lines if "warning" in x]
  assert warned == names


def test_a_slow_reader_leaves_the_devices_idle(run):
  assert min(run(turns=1, reading=0.2).idle()[1:]) > 0.8


def test_a_fast_reader_does_not(run):
  """Half of the steps at least: other programs may hold up the loop."""
  idle = run(turns=20_000).idle()
  assert np.median(idle) < 0.1
