"""Plans of an experiment's runs are made, shared and summed."""

import dataclasses

import pytest

from jaxsae.lm import Site
from jaxsae.plan import plan, prices, run_set, topology
from jaxsae.plan.topology import parse
from tests.plan.here import devices

pytestmark = pytest.mark.slow


@pytest.fixture
def runs(config):
  at = lambda layer: dataclasses.replace(
    config, sae=dataclasses.replace(config.sae, sites=(Site("resid", layer),))
  )
  wide = dataclasses.replace(at(0).sae, widths=(128,))
  return {
    "low": at(0),
    "high": at(1),
    "wide": dataclasses.replace(at(0), sae=wide, tokens=2 * config.tokens),
  }


@pytest.fixture
def here(monkeypatch):
  """Makes eight devices of this machine stand in for those of a slice."""
  monkeypatch.setattr(topology, "find_devices", lambda slices: devices(8))


def planned(runs, at_once=1, slices="v5e:2x4", compiles=False):
  return run_set.plan_all(runs, parse(slices), prices.read(), at_once, compiles)


def test_only_the_deepest_of_a_kind_is_compiled(runs):
  assert run_set.deepest(runs) == {
    "low": "high",
    "high": "high",
    "wide": "wide",
  }


def test_a_run_that_is_not_compiled_has_the_memory_of_the_deepest(
  runs, here, monkeypatch
):
  compiled, make = [], run_set.make

  def count(config, slices, prices, compiles=True):
    if compiles:
      compiled.append(max(site.layer for site in config.sites))
    return make(config, slices, prices, compiles)

  monkeypatch.setattr(run_set, "make", count)
  found = planned(runs, compiles=True)
  assert sorted(compiled) == [0, 1] and found.stand_ins == {"low": "high"}
  low, high = found.plans["low"], found.plans["high"]
  assert low.memory.temporaries == high.memory.temporaries
  assert found.fits is True and low.step_seconds < high.step_seconds


def test_sums_are_over_all_runs(runs, here):
  found = planned(runs)
  each = [plan.chip_hours for plan in found.plans.values()]
  assert found.chip_hours == pytest.approx(sum(each))
  assert found.money == pytest.approx(1.2 * sum(each))
  assert found.money_spot == pytest.approx(0.24493 * sum(each))
  assert found.fits is None  # nothing was compiled
  assert found.hours == pytest.approx(sum(each) / 8)


def test_runs_are_shared_so_that_machines_end_at_about_the_same_time(
  runs, here
):
  found = planned(runs, at_once=2)
  assert sorted(name for share in found.shares for name in share) == sorted(
    runs
  )
  assert ["wide"] in found.shares
  assert found.hours == pytest.approx(found.plans["wide"].hours)


def test_without_sharing_each_autoencoder_reads_the_text_again(runs, here):
  """Each of two autoencoders needs its own forward pass and update.

  On eight chips of 1.97e14 operations and 8.1e11 bytes a second; what so small
  a run takes is the reading and writing of memory.
  """
  found = planned({"low": runs["low"]})
  reading, *_ = found.plans["low"].roofline.parts
  share = 64 * 64 / 8  # weights of a device, where latents are over all
  traffic = 4 * (9 * share + 6 * 64 * 64 / 8 + 4 * 64 * 32)
  sent = 2 * (7 / 8) * 4 * 64 * 32 + (7 / 8) * 64 * 2 * 32
  update = max(traffic / 8.1e11, sent / 9e10)
  steps = runs["low"].steps
  expected = steps * 2 * (reading.seconds + 8 * update) * 8 / 3600
  assert found.unshared_chip_hours == pytest.approx(expected)


def test_without_a_price_the_money_is_none(runs, monkeypatch):
  monkeypatch.setattr(topology, "find_devices", lambda slices: devices(2))
  some = {"low": runs["low"]}
  found = planned(some, slices="tpu7x:1x1x1")
  assert found.money is None and found.unshared_money is None
  assert found.chip_hours > 0


def test_a_plan_counts_chips_and_not_devices(runs, monkeypatch):
  monkeypatch.setattr(topology, "find_devices", lambda slices: devices(2))
  found = plan.make(runs["low"], parse("tpu7x:1x1x1"), {}, compiles=False)
  assert found.slices.devices == 2
  assert found.chip_hours == found.hours


def test_a_run_with_a_different_config_is_of_another_kind(runs):
  other = dataclasses.replace(runs["high"], fsdp=True)
  kinds = run_set.deepest({**runs, "other": other})
  assert kinds["other"] == "other"
