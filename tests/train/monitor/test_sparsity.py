"""Warnings: when they come, how often, and of whom."""

import dataclasses

import pytest

from jaxsae.lm import Site
from jaxsae.train import SweepConfig, TrainConfig
from jaxsae.train.monitor.log import Log
from jaxsae.train.monitor.sparsity import PATIENCE, SparsityCheck

CONFIG = TrainConfig(
  sae=SweepConfig(
    sites=(Site("resid", 3),),
    widths=(64,),
    penalty="quadratic",
    target_l0=(10, 20),
    sparsity_coefficient=(0.1,),
    bandwidth=0.01,
  )
)
SOUND = {"l0": 10.0, "moved": 1e-3, "in_window": 1e-3}
NAMES = ("resid.3/64/l0_10", "resid.3/64/l0_20")


def said(watch, steps, every=1, **first):
  """What is said of two autoencoders, the first of which has these figures."""
  found = []
  for step in range(every, every * steps + 1, every):
    figures = {NAMES[0]: SOUND | first, NAMES[1]: SOUND | {"l0": 20.0}}
    found += [(step, line) for line in watch.warnings(step, figures)]
  return found


def test_nothing_is_said_of_a_sound_run():
  assert said(SparsityCheck(CONFIG), 50) == []


def test_thresholds_that_stand_still_off_target():
  ((step, line),) = said(SparsityCheck(CONFIG), 50, moved=1e-8, l0=13.0)
  assert step == PATIENCE
  assert NAMES[0] in line and NAMES[1] not in line
  assert "L0 13, target 10; raise --sae.bandwidth (now 0.01)" in line


@pytest.mark.parametrize("first", [
  {"moved": 1e-8, "l0": 11.0},  # near its target it may stand still
  {"moved": 1e-5, "l0": 13.0},
])  # fmt: skip
def test_thresholds_that_move_or_have_arrived(first):
  assert said(SparsityCheck(CONFIG), 50, **first) == []


def test_patience_is_counted_in_buckets_without_a_break():
  watch = SparsityCheck(CONFIG)
  assert said(watch, PATIENCE - 1, moved=0, l0=30.0) == []
  assert said(watch, 1) == []  # it moves
  assert said(watch, PATIENCE - 1, moved=0, l0=30.0) == []
  assert len(said(SparsityCheck(CONFIG), 3, every=10, moved=0, l0=30.0)) == 1


def test_an_empty_window():
  ((step, line),) = said(SparsityCheck(CONFIG), 9, in_window=2e-6)
  assert step == 1
  assert "2.0e-06" in line and "raise --sae.bandwidth (now 0.01)" in line


def test_an_autoencoder_that_never_fires_has_an_empty_window():
  assert said(SparsityCheck(CONFIG), 1, in_window=0.0, l0=0.0)


def test_few_in_the_window_are_enough_where_few_are_active():
  """A million latents at L0 = 50 are active 5e-5 of the time."""
  wide = dataclasses.replace(CONFIG.sae, widths=(1_000_000,))
  watch = SparsityCheck(dataclasses.replace(CONFIG, sae=wide))
  figures = SOUND | {"l0": 50.0, "in_window": 5e-6}
  names = [name.replace("/64/", "/1000000/") for name in NAMES]
  assert not watch.warnings(1, dict.fromkeys(names, figures))


def test_without_targets_nothing_is_off_target():
  config = TrainConfig(sae=SweepConfig(sites=(Site("resid", 3),), widths=(64,)))
  name = "resid.3/64/lambda_0.0006"
  watch = SparsityCheck(config)
  for step in range(1, 50):
    assert watch.warnings(step, {name: SOUND | {"moved": 0.0}}) == []


def test_the_log_says_it_in_one_line(config, tmp_path, capsys, monkeypatch):
  log = Log(config, tmp_path, 0, {})
  values = dict.fromkeys(
    ("resid.1/64/l0_4", "resid.1/64/l0_8", "attn.0/64/l0_4", "attn.0/64/l0_8"),
    SOUND | {"fvu": 0.1, "in_window": 1e-7},
  )
  monkeypatch.setattr("jaxsae.train.monitor.log.figures", lambda *_: values)
  with log:
    log.write(1, (), 0.0, {})
    log.write(2, (), 0.0, {})
  lines = capsys.readouterr().out.splitlines()
  assert [x.split(":")[1].strip() for x in lines if "warning" in x] == list(
    values
  )
