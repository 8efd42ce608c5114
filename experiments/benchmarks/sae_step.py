"""One update of one autoencoder: ours beside SAELens', in one run.

  pip install "jaxsae[test]"
  python experiments/benchmarks/sae_step.py

Loss, gradients, optimiser and the count of idle latents, in float32 on this
machine's CPU; SAELens' is its trainer's own step. Both have the same weights,
thresholds and inputs. Rates are arithmetic (10·N·D·F a step) over time, held
against a plain product of the same sizes in JAX, which is taken as the limit.
On two CPU cores, 2026-11-21, jax 0.10.0, sae-lens 6.54.12, torch 2.13.0:

| N | D | F | state | ours ms | SAELens ms | ratio | GFLOP/s | limit | share |
|---|---|---|---|---|---|---|---|---|---|
| 1024 | 2304 | 16384 | initial | 953 | 2514 | 2.65 | 405 | 485 | 84% |
| 1024 | 2304 | 16384 | L0 64 | 955 | 2507 | 2.60 | 405 | 473 | 85% |
| 2048 | 256 | 4096 | initial | 88 | 269 | 3.06 | 245 | 428 | 57% |
| 2048 | 256 | 4096 | L0 64 | 85 | 265 | 3.04 | 251 | 372 | 68% |
"""

import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np
import torch
from sae_lens import JumpReLUTrainingSAE, JumpReLUTrainingSAEConfig
from sae_lens.config import LoggingConfig, SAETrainerConfig
from sae_lens.training.sae_trainer import SAETrainer

from jaxsae import mesh as meshes
from jaxsae.lm import Site
from jaxsae.sae import JumpRelu
from jaxsae.sae import stack as stacks
from jaxsae.train import arrays, optim
from jaxsae.train.config import SweepConfig, TrainConfig
from jaxsae.train.group import groups
from jaxsae.train.state import StackState

TURNS = 7
L0 = 64  # of the trained state
SHAPES = [(1024, 2304, 16_384), (2048, 256, 4096)]  # N, D, F


def main():

  print(*TABLE, sep="\n")
  for shape in SHAPES:
    for trained in (False, True):
      print(row(shape, trained), flush=True)


TABLE = [
  "| N | D | F | state | ours ms | SAELens ms | ratio | GFLOP/s | limit"
  " | share |",
  "|---|---|---|---|---|---|---|---|---|---|",
]


def row(shape, trained):
  """The table's line for one shape and state."""
  n, d, f = shape
  x = np.random.default_rng(0).normal(size=(n, d)).astype(np.float32)
  x /= np.sqrt(d)
  sae = start(x, f, trained)
  mine, theirs, limit = take_turns(
    ours(sae, x), saelens(sae, x), product(shape)
  )
  flops, seconds = 10 * n * d * f / 1e9, statistics.median(mine)
  rate, most = flops / seconds, flops / 5 / min(limit)
  ratio = statistics.median(t / m for m, t in zip(mine, theirs, strict=True))
  state = f"L0 {L0}" if trained else "initial"
  return (
    f"| {n} | {d} | {f} | {state} | {1e3 * seconds:.0f}"
    f" | {1e3 * statistics.median(theirs):.0f} | {ratio:.2f} | {rate:.0f}"
    f" | {most:.0f} | {rate / most:.0%} |"
  )


def start(x, width, trained):
  """A stack of one autoencoder; trained: about L0 latents are active."""
  sae = stacks.init(JumpRelu(), [0], x.shape[1], x.shape[1], width)
  if not trained:
    return sae
  pre = x[:256] @ np.asarray(sae.w_enc[0])
  threshold = np.quantile(pre, 1 - L0 / width)
  return sae.replace(threshold=jnp.full_like(sae.threshold, threshold))


def ours(sae, x):
  """A function that does one update and waits for it."""
  sweep = SweepConfig(sites=(Site("resid", 0),), widths=(sae.width,))
  config = TrainConfig(sae=sweep)
  mesh = meshes.make(config.mesh)
  (group,) = groups(config, mesh)
  state = StackState(
    sae=jax.tree.map(jnp.copy, sae),
    moments=optim.transformation(sweep.optim).init(sae),
    idle=jnp.zeros((1, sae.width), jnp.int32),
    scale=jnp.ones(1),
    target_scale=jnp.ones(1),
  )
  x, number = jnp.asarray(x), jnp.int32(0)

  def turn():
    nonlocal state
    state = arrays.update(config, mesh, group, state, x, number)
    jax.block_until_ready(state)

  return turn


def saelens(sae, x):
  """The same by SAELens' trainer."""
  d, f = x.shape[1], sae.width
  config = JumpReLUTrainingSAEConfig(
    d_in=d, d_sae=f, l0_coefficient=6e-4, jumprelu_bandwidth=1e-3
  )
  theirs = JumpReLUTrainingSAE(config)
  with torch.no_grad():
    for name in ("w_enc", "b_enc", "w_dec", "b_dec", "threshold"):
      value = torch.tensor(np.asarray(getattr(sae, name)[0]))
      name = name.replace("w_", "W_")
      getattr(theirs, name).copy_(value)
  trainer = SAETrainer(
    cfg=SAETrainerConfig(
      total_training_samples=10**9,
      train_batch_size_samples=len(x),
      lr=7e-5,
      lr_end=7e-5,
      adam_beta1=0.0,
      logger=LoggingConfig(log_to_wandb=False),
    ),
    sae=theirs,
    data_provider=iter(()),
  )
  x = torch.tensor(x)
  return lambda: trainer._train_step(theirs, x)


def product(shape):
  """Latents times directions, the fastest of the five products."""
  n, d, f = shape
  a, b = jnp.ones((n, f)), jnp.ones((f, d))
  multiply = jax.jit(jnp.matmul)
  return lambda: multiply(a, b).block_until_ready()


def take_turns(*functions):
  """Seconds of each turn of each function, warmed up, one after the other."""
  for function in functions:
    function()
  times = [[] for _ in functions]
  for _ in range(TURNS):
    for function, seconds in zip(functions, times, strict=True):
      begin = time.perf_counter()
      function()
      seconds.append(time.perf_counter() - begin)
  return times


if __name__ == "__main__":
  main()
