"""The seconds, bytes and dollars of stages besides training."""

import pytest

from jaxsae import mesh as meshes
from jaxsae.lm.weights import abstract_lm, read_sizes
from jaxsae.plan import evaluation, stages
from jaxsae.plan.prices import ChipPrice, StoragePrice
from jaxsae.plan.topology import parse
from jaxsae.train.config.duration import Duration

CHIP = ChipPrice("v5e", "here", "CHF", 2.0, 1.0, "a dream", "2026-11-29")
BUCKET = StoragePrice("Standard", "here", "CHF", 0.5, "a dream", "2026-11-29")


def by_kind(config):
  gemma, mesh = read_sizes(config.lm), meshes.make(config.mesh)
  found = stages.of_run(config, gemma, mesh, 50.0, 9.0, 2**30, 2**31)
  return {stage.name.split()[0]: stage for stage in found}


def test_every_stage_has_seconds_bytes_and_money(config, replace):
  config = replace(
    config,
    tokens=6 * 512,
    data__held_out=0.5,
    checkpoint_every=2,
    keep_checkpoints=2,
    keep_every=3,
  )
  found = by_kind(config)
  tokens = 2 * 6 * 512
  assert found["tokenising"].seconds == pytest.approx(tokens / stages.TOKENS)
  assert found["tokenising"].size == 2 * tokens  # a vocabulary of 320
  assert found["evaluation"].seconds == 9.0
  assert found["evaluation"].money(CHIP, 8) == pytest.approx(9 / 3600 * 8 * 2)
  assert found["evaluation"].money(None, 8) is None
  saved = found["checkpoints"]
  assert "3 written, 4 kept" in saved.name  # two, and those of steps 3 and 6
  assert saved.size == 4 * 2**30 and saved.money(CHIP, 8) == 0
  assert saved.money_a_month(BUCKET) == pytest.approx(4 * 0.5)
  assert saved.money_a_month(None) is None
  assert found["export"].money_a_month(BUCKET) == pytest.approx(2 * 0.5)
  assert found["tokenising"].money_a_month(BUCKET) == 0
  timed = replace(config, checkpoint_every=Duration.parse("20s"))
  assert "3 written" in by_kind(timed)["checkpoints"].name  # in 50 seconds


def test_the_evaluations_work_follows_its_settings(config, replace):
  chip, mesh = parse("v5e:2x4").kind.chip, meshes.make(config.mesh)
  lm = abstract_lm(read_sizes(config.lm), mesh)
  # Batches that the eight devices divide, so that none is padding.
  of = lambda config: evaluation.work(config, lm, mesh, chip)
  one = replace(config, eval__batches=1, eval__loss_batches=1)
  both = replace(config, eval__batches=2, eval__loss_batches=2)
  assert of(both).flops == pytest.approx(2 * of(one).flops)
  more = replace(config, eval__batches=2, eval__loss_batches=1)
  assert of(one).flops < of(more).flops < of(both).flops
  wide = replace(one, sae__widths=(128,))
  passes = 8 * 16 / 8 * 2  # tokens of a device, for both parts
  d = {"resid": 32, "attn": 64}
  latents = sum(2 * 2 * d[taps.kind] * 64 for taps in config.sae.sites)
  # Each autoencoder has three controls.
  more = (1 + 3) * evaluation._PRODUCTS * 2 * passes * latents
  assert of(wide).flops - of(one).flops == pytest.approx(more)
