"""Trains a small Gemma 2 from scratch, on one device.

jaxsae is not for training language models; this makes the one that ships with
it, so that its examples and tests have a real model.
"""

import dataclasses
import functools
import time
from collections.abc import Callable, Iterable, Iterator

import jax
import jax.numpy as jnp
import optax

from jaxsae import overrides
from jaxsae.lm import GemmaConfig, Lm, init_params, next_token_loss
from jaxsae.overrides import (
  Count,
  Positive,
  PositiveOrZero,
  Seed,
  SettingError,
)
from jaxsae.token_batch import TokenBatch


@dataclasses.dataclass(frozen=True)
class PretrainConfig:
  """Settings of the optimiser and the length of training."""

  steps: Count = 4000  # optimiser steps
  batch: Count = 16  # rows per step
  lr: Positive = 4e-3  # peak learning rate
  warmup: Count = 100  # steps from zero to the peak; then a cosine to zero
  weight_decay: PositiveOrZero = 0.1  # decoupled, on matrices
  seed: Seed = 0  # of the initial weights

  def __post_init__(self):
    overrides.check(self)
    if self.warmup >= self.steps:
      raise SettingError(
        self, "{warmup} is not below {steps}; choose fewer steps of warm-up."
      )


def pretrain(
  gemma: GemmaConfig,
  config: PretrainConfig,
  batches: Iterator[TokenBatch],
  report: Callable[[int, float, float], None],
) -> Lm:
  """Trains a model on packed batches.

  Args:
    gemma: sizes of the model.
    config: settings of the training.
    batches: endless, as `jaxsae.data` makes them.
    report: called every 50 steps with the step, the mean training loss since
      the last call in nats per token, and tokens per second.
  """
  optimiser = make_optimiser(config)
  params = init_params(gemma, jax.random.key(config.seed))
  state = (params, optimiser.init(params))
  step = jax.jit(functools.partial(_step, gemma, optimiser), donate_argnums=0)
  losses, started = [], time.perf_counter()
  for i, batch in zip(range(1, config.steps + 1), batches, strict=False):
    state, loss = step(state, batch)
    losses.append(loss)
    if i % 50 == 0 or i == config.steps:
      mean = float(jnp.mean(jnp.stack(losses)))  # waits for the device
      seconds = time.perf_counter() - started
      report(i, mean, len(losses) * batch.tokens.size / seconds)
      losses, started = [], time.perf_counter()
  return Lm(state[0], gemma)


def make_optimiser(config: PretrainConfig) -> optax.GradientTransformation:
  """Makes Muon for the blocks' matrices, AdamW for the embedding and norms.

  Muon's updates are scaled to AdamW's usual size, so both share one rate.
  """
  schedule = optax.warmup_cosine_decay_schedule(
    0.0, config.lr, config.warmup, config.steps
  )
  return optax.chain(
    optax.clip_by_global_norm(1.0),
    optax.contrib.muon(
      schedule,
      weight_decay=config.weight_decay,
      adam_b2=0.95,
      consistent_rms=0.2,
      muon_weight_dimension_numbers=_matrices,
    ),
  )


def held_out_loss(lm: Lm, batches: Iterable[TokenBatch]) -> float:
  """Returns the mean cross-entropy in nats per token, over all batches."""
  total, count = 0.0, 0
  for batch in batches:
    losses, mask = _losses(lm, batch)
    total, count = total + float(losses.sum()), count + int(mask.sum())
  return total / count


def _step(gemma, optimiser, state, batch):
  params, moments = state
  loss, grads = jax.value_and_grad(_mean_loss)(params, gemma, batch)
  updates, moments = optimiser.update(grads, moments, params)
  return (optax.apply_updates(params, updates), moments), loss


def _mean_loss(params, gemma, batch):
  losses, mask = _losses(Lm(params, gemma), batch)
  return losses.sum() / mask.sum()


@jax.jit
def _losses(lm, batch):
  logits = lm.logits(batch.tokens, **batch.packing)
  return next_token_loss(logits, batch.tokens, batch.segments)


# The axes of each weight that are rows and columns of Muon's matrices.
_AXES = {
  "q_einsum": ((1,), (0, 2)),  # [N, D, H]
  "kv_einsum": ((2,), (1, 3)),  # [2, K, D, H]
  "attn_vec_einsum": ((0, 1), (2,)),  # [N, H, D]
  "gating_einsum": ((2,), (1,)),  # [2, F, D]
  "linear": ((0,), (1,)),  # [F, D]
}


def _matrices(params):
  def axes(path, leaf):
    del leaf
    names = {key.key for key in path}
    for name, (rows, columns) in _AXES.items():
      if name in names:
        return optax.contrib.MuonDimensionNumbers(rows, columns)
    return None

  return jax.tree.map_with_path(axes, params)
