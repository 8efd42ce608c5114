"""Published recipes, complete, for experiments to start from.

  from jaxsae.train import TrainConfig, presets

  config = TrainConfig(sae=presets.gemma_scope(sites=…, widths=…))

The numbers of a recipe hold under its conventions, and those are fixed in the
code. Inputs are divided by one scalar per site, so that their *whole vectors*
have unit mean squared norm (`sae/normalisation.py`); ε, θ and λ are in these
units. Under the other convention, mean squared norm D, thresholds and
bandwidths are √D times larger and λ is D times larger. Directions are He-
uniform, then unit; encoders start as their transpose, biases at zero
(`sae/stack.py`). Gradients are projected before Adam and directions
renormalised after it (`train/optim.py`). The encoder sees x - b_dec; that and
the scale are folded into the arrays at the end (`sae/model.py`).
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

from jaxsae.lm import Site, Taps
from jaxsae.train.config.sweep import OptimConfig, SweepConfig


def gemma_scope(**chosen: Any) -> SweepConfig:
  """Gemma Scope's recipe (arXiv 2408.05147 §3.2), with an experiment's choices.

  The paper names two values of λ: 6e-4, which gave an L0 of about 50 on the
  9B, and 1e-3.
  """
  recipe = {
    "penalty": "l0",
    "sparsity_coefficient": (6e-4,),
    "bandwidth": 1e-3,
    "ste_to_input": False,
    "initial_threshold": 1e-3,
    "optim": OptimConfig(
      lr=7e-5,
      lr_warmup=1000,
      lr_decay=0.0,
      sparsity_warmup=10_000,
      b1=0.0,
      b2=0.999,
      eps=1e-8,
      clip=None,
    ),
  }
  return SweepConfig(**(recipe | chosen))


def gemma_scope_to(
  sites: Sequence[Site | Taps],
  widths: tuple[int, ...],
  target_l0: tuple[float, ...],
  **chosen: Any,
) -> SweepConfig:
  """Gemma Scope's recipe, but with a pull to target L0s.

  Gemma Scope's own λ are not published, only the L0 they led to. The pull is
  that of Gemma Scope 2; its strength is not published either.
  """
  return gemma_scope(
    sites=tuple(map(Taps.of, sites)),
    widths=tuple(widths),
    penalty="quadratic",
    target_l0=tuple(target_l0),
    sparsity_coefficient=(1e-2,),
    **chosen,
  )


def gemma_scope_2(**chosen: Any) -> SweepConfig:
  """Gemma Scope 2's recipe (its report, §2-3), with an experiment's choices.

  A quadratic pull to a target L0 for each token, a penalty on frequency, a
  Matryoshka loss, and five times the λ warm-up. Not published, so ours: λ, the
  form and the scale of the penalty on frequency, and the prefixes, which are
  those of the Matryoshka paper (arXiv 2503.17547). λ = 1e-2 holds L0 within 5 %
  of a target for which `l0` would need a λ of at most 2e-3, for the pull is
  4λ (L0 / L0* - 1).

  ω = 1 took the most active latents of the small Gemma 2 (width 2,048,
  λ = 0.05, targets 12, 24, 48, after 393,216 tokens, one seed, 2026-11-21) from
  85-96 % of tokens to 17-22 %, and L0 from its target to 5-6 % below it; 0.1
  took them to 8-13 %, and L0 to 17-22 % below. Where latents are rarer, L0
  moves less.
  python experiments/quickstart.py --sae.sites=resid.3 --tokens=393216
    --sae.frequency_scale=1
  """
  recipe = {
    "penalty": "quadratic",
    "target_l0": (10, 50, 150),
    "sparsity_coefficient": (1e-2,),
    "frequency_scale": 1.0,
    "prefixes": (1 / 32, 3 / 32, 7 / 32, 15 / 32),
    "optim": dataclasses.replace(gemma_scope().optim, sparsity_warmup=50_000),
  }
  return gemma_scope(**(recipe | chosen))
