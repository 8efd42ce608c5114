"""Warnings of architectures' alarms: when they come, how often, of whom."""

import dataclasses

import numpy as np
import pytest

from jaxsae.lm import Site
from jaxsae.sae.architectures.threshold_alarms import PATIENCE
from jaxsae.train import SweepConfig, TrainConfig
from jaxsae.train.monitor.architecture import ArchitectureCheck
from tests.train.monitor import samples
from tests.train.monitor.samples import BUCKET, alike

CONFIG = TrainConfig(
  log_every=1,
  sae=SweepConfig(
    sites=(Site("resid", 3),),
    widths=(64,),
    penalty="quadratic",
    target_l0=(10, 20),
    sparsity_coefficient=(0.1,),
    bandwidth=0.01,
  ),
).fitted(1)
SOUND = {"l0": 10.0, "moved": 1e-3, "in_window": 1e-3}
NAMES = ("resid.3/64/l0_10", "resid.3/64/l0_20")


def check(config=CONFIG):
  return ArchitectureCheck(samples.observed(config))


def figures(config, *members):
  """Metrics of one stack, from the figures of each of its members."""
  arrays = {
    name: np.array([member[name] for member in members]) for name in SOUND
  }
  l0 = arrays.pop("l0")
  return samples.metrics(config, l0=lambda _: l0, figures=lambda _: arrays)


def said(watch, steps, **first):
  """Returns messages about two autoencoders, given the figures of the first."""
  found, seen = [], figures(CONFIG, SOUND | first, SOUND | {"l0": 20.0})
  for step in range(1, steps + 1):
    found += [(step, line) for line in watch.observe(step, seen, BUCKET)]
  return found


def test_nothing_is_said_of_a_sound_run():
  assert said(check(), 50) == []


def test_thresholds_that_stand_still_off_target():
  ((step, line),) = said(check(), 50, moved=1e-8, l0=13.0)
  assert step == PATIENCE
  assert NAMES[0] in line and NAMES[1] not in line
  assert "L0 13, target 10; raise --sae.bandwidth (now 0.01)" in line


@pytest.mark.parametrize("first", [
  {"moved": 1e-8, "l0": 11.0},  # near its target it may stand still
  {"moved": 1e-5, "l0": 13.0},
  {"moved": np.nan, "l0": np.nan, "in_window": np.nan},  # for others to tell
])  # fmt: skip
def test_thresholds_that_move_or_have_arrived(first):
  assert said(check(), 50, **first) == []


def test_patience_is_counted_in_buckets_without_a_break():
  watch = check()
  assert said(watch, PATIENCE - 1, moved=0, l0=30.0) == []
  assert said(watch, 1) == []  # it moves
  assert said(watch, PATIENCE - 1, moved=0, l0=30.0) == []


def test_only_steps_that_are_logged_are_looked_at_and_others_count():
  watch = check(dataclasses.replace(CONFIG, log_every=10))
  ((step, _),) = said(watch, 39, moved=0, l0=30.0)
  assert step == 30  # the third that is looked at


def test_an_empty_window():
  ((step, line),) = said(check(), 9, in_window=2e-6)
  assert step == 1
  assert "2.0e-06" in line and "raise --sae.bandwidth (now 0.01)" in line


def test_an_autoencoder_that_never_fires_has_an_empty_window():
  assert said(check(), 1, in_window=0.0, l0=0.0)


def test_few_in_the_window_are_enough_where_few_are_active():
  """A million latents at L0 = 50 are active 5e-5 of the time."""
  wide = dataclasses.replace(CONFIG.sae, widths=(1_000_000,))
  config = dataclasses.replace(CONFIG, sae=wide)
  few = SOUND | {"l0": 50.0, "in_window": 5e-6}
  assert not check(config).observe(1, figures(config, few, few), BUCKET)


def test_without_targets_nothing_is_off_target():
  config = TrainConfig(
    log_every=1, sae=SweepConfig(sites=(Site("resid", 3),), widths=(64,))
  ).fitted(1)
  watch = check(config)
  frozen = figures(config, SOUND | {"moved": 0.0})
  for step in range(1, 50):
    assert watch.observe(step, frozen, BUCKET) == []


def test_architectures_without_alarms_have_nothing_to_say():
  sweep = SweepConfig(sites=(Site("resid", 3),), widths=(64,))
  relu = dataclasses.replace(sweep, architecture="relu")
  config = TrainConfig(log_every=1, sae=relu).fitted(1)
  seen = samples.metrics(config, l0=alike(0.0))  # and no figures of thresholds
  assert check(config).observe(1, seen, BUCKET) == []
