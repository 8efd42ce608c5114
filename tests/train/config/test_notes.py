"""Settings that are allowed but seldom intended are told at the start."""

from jaxsae.lm import Taps
from jaxsae.train import presets
from jaxsae.train.config.notes import notes
from jaxsae.train.config.run import TrainConfig
from jaxsae.train.config.sweep import OptimConfig, SweepConfig

SITES = (Taps.parse("resid.3"),)


def said(sweep: SweepConfig, tokens: int) -> list[str]:
  return list(notes(TrainConfig(sae=sweep, tokens=tokens).fitted(1)))


def test_warmups_that_outlast_the_run_are_told():
  """With Gemma Scope's warm-up of 10,000 updates, λ ends at 3.8 %."""
  optim = OptimConfig(lr_warmup=10)
  (line,) = said(SweepConfig(sites=SITES, optim=optim), 24 * 16 * 4096)
  for part in ("sparsity_warmup=10,000", "384", "λ", "3.8 %"):
    assert part in line


def test_nothing_is_told_of_a_long_run():
  assert not said(SweepConfig(sites=SITES), 10**9)


def test_prefixes_are_told_to_overshoot_targets():
  (line,) = said(presets.gemma_scope_2(sites=SITES), 10**10)
  assert "prefixes" in line and "sparsity_coefficient" in line
  sweep = presets.gemma_scope_2(sites=SITES, prefixes=())
  assert not said(sweep, 10**10)
