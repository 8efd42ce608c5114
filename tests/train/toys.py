"""A toy run, step by step."""

import dataclasses
import functools

import jax
import numpy as np

from jaxsae import mesh as meshes
from jaxsae.data import DataConfig
from jaxsae.lm import Site, load_lm
from jaxsae.train import loop
from jaxsae.train import step as steps
from jaxsae.train.config.run import (
  BucketConfig,
  EvalConfig,
  OptimConfig,
  SweepConfig,
  TrainConfig,
)
from jaxsae.train.group import place_stacks
from jaxsae.train.placement.select import bucket_dtype
from jaxsae.train.sources.text import TextSource, open_batches, read_bucket
from jaxsae.train.state import abstract_state, init


def compile_step(config, mesh, state, lm, batch):
  """Compiles the step of a run whose arguments are given."""
  dtype = bucket_dtype(config, lm)
  groups = place_stacks(
    config.stacks, config.schedule, mesh, state.stacks, dtype
  )
  read = functools.partial(read_bucket, config, mesh)
  return steps.compile_step(read, groups, state, lm, batch)


def start(config):
  """Everything a step needs, at the beginning of a run."""
  mesh = meshes.make(config.mesh)
  lm = load_lm(config.lm, mesh=mesh)
  corpus = loop.open_corpus(config, lm)
  batches = open_batches(config, mesh, corpus.train)
  source = TextSource(config, mesh, lm, batches, corpus.documents)
  abstract = abstract_state(config, lm.config, mesh)
  return mesh, source, loop.begin(config, mesh, source, abstract)


def init_state(config, gemma, scale=1.0):
  """The state of a run before its first bucket, all scales alike."""
  widths = {site: site.width(gemma) for site in config.sites}
  scales = dict.fromkeys(config.sites, scale)
  return init(config.stacks, config.data.seed, widths, scales)


def curve(config, buckets=3):
  """Losses, L0s and FVUs of the first buckets, and the last state."""
  seen, state = some_buckets(config, buckets)
  return np.array([[[m.loss, m.l0, m.fvu] for m in ms] for ms in seen]), state


def some_buckets(config, buckets):
  """The metrics of the first buckets, and the last state."""
  mesh, source, state = start(config)
  seen, step = [], None
  for _ in range(buckets):
    bucket = source.take().batch
    step = step or compile_step(config, mesh, state, source.weights, bucket)
    state, metrics = step(state, source.weights, bucket)
    seen.append(jax.device_get(metrics))
  return seen, state


def make_config(folder, texts, lm_path) -> TrainConfig:
  """Two stacks of two autoencoders, six buckets of eight updates."""
  return TrainConfig(
    workdir=str(folder / "run"),
    lm=str(lm_path),
    tokens=6 * 512,
    passes=None,
    data=DataConfig(source=str(texts), context=16, cache=str(folder / "cache")),
    sae=SweepConfig(
      sites=(Site("resid", 1), Site("attn", 0)),
      widths=(64,),
      penalty="quadratic",
      target_l0=(4.0, 8.0),
      sparsity_coefficient=(1e-2,),
      bandwidth=0.05,
      initial_threshold=0.05,
      optim=OptimConfig(lr=3e-3, lr_warmup=4, sparsity_warmup=8),
    ),
    bucket=BucketConfig(microbatches=4, rows=8, update_tokens=64),
    eval=EvalConfig(batch=8, batches=2, loss_batches=1),
    checkpoint_every=2,
  )


def small(folder, texts, lm_path) -> TrainConfig:
  """One stack of two autoencoders; six buckets, a checkpoint every two."""
  return dataclasses.replace(
    make_config(folder, texts, lm_path),
    sae=SweepConfig(
      sites=(Site("resid", 1),),
      widths=(64,),
      penalty="quadratic",
      target_l0=(4.0, 8.0),
      sparsity_coefficient=(1e-2,),
    ),
    eval=EvalConfig(),
    keep_checkpoints=3,
  )
