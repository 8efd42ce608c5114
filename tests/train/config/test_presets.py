"""Presets keep the published settings, whatever the defaults become."""

from jaxsae.lm import Site, Taps
from jaxsae.sae import Kernel
from jaxsae.sae.penalty import L0, Frequency, Quadratic
from jaxsae.train import BucketConfig, OptimConfig, SweepConfig
from jaxsae.train.config import presets


def test_gemma_scope():
  sweep = presets.gemma_scope()
  architecture, optim = sweep.stacks[0].architecture, sweep.optim
  assert architecture.kernel == Kernel(1e-3, to_input=False)
  assert architecture.penalties == (L0(),)
  assert architecture.threshold == 1e-3
  assert architecture.prefixes == ()
  assert sweep.target_l0 == ()
  assert sweep.wakes_after is None
  assert (optim.lr, optim.b1, optim.b2, optim.eps) == (7e-5, 0, 0.999, 1e-8)
  assert (optim.lr_warmup, optim.sparsity_warmup) == (1000, 10_000)
  assert optim.lr_decay == 0 and optim.clip is None


def test_gemma_scope_2():
  sweep = presets.gemma_scope_2()
  architecture, optim = sweep.stacks[0].architecture, sweep.optim
  assert architecture.kernel == Kernel(1e-3, to_input=False)
  assert architecture.penalties == (Quadratic(), Frequency(1.0))
  assert architecture.threshold == 1e-3
  assert len(architecture.prefixes) == 4  # Matryoshka
  assert sweep.target_l0 == (10, 50, 150)
  assert (optim.lr, optim.b1, optim.b2, optim.eps) == (7e-5, 0, 0.999, 1e-8)
  assert (optim.lr_warmup, optim.sparsity_warmup) == (1000, 50_000)


def test_defaults_are_gemma_scopes():
  assert presets.gemma_scope() == SweepConfig()
  assert presets.gemma_scope().optim == OptimConfig()
  assert BucketConfig().fitted(1, context=1024).update_tokens == 4096


def test_presets_accept_the_other_settings():
  sites = (Site("mlp", 3), Site("resid", 3))
  sweep = presets.gemma_scope_2(
    sites=sites, widths=(512,), target_l0=(20,), bandwidth=0.01
  )
  assert sweep.sites == tuple(map(Taps.of, sites)) and sweep.widths == (512,)
  assert sweep.target_l0 == (20,) and sweep.bandwidth == 0.01
  assert presets.gemma_scope_2().bandwidth == 1e-3
