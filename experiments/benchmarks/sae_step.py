"""One update of one autoencoder: ours beside SAELens'.

  pip install "jaxsae[test]"  # with Python 3.11
  python -m experiments.benchmarks.sae_step

Loss, gradients, optimiser and the count of idle latents, in float32 on this
machine's CPU; SAELens' side is its trainer's own step. Both have the same
weights, thresholds and inputs. GFLOP/s counts 10·N·D·F FLOPs per update; the
limit is the rate of a plain product of the same sizes in JAX, and the share is
the fraction of it that we reach.
"""

import statistics

import numpy as np
import torch
from sae_lens import JumpReLUTrainingSAE, JumpReLUTrainingSAEConfig
from sae_lens.config import LoggingConfig, SAETrainerConfig
from sae_lens.training.sae_trainer import SAETrainer

from experiments.benchmarks import product, table, turns, update

SHAPES = [(1024, 2304, 16_384), (2048, 256, 4096)]  # N, D, F


def main():
  table.head(
    *"N D F state".split(),
    *("ours ms", "SAELens ms", "ratio", "GFLOP/s", "limit", "share"),
  )
  for shape in SHAPES:
    for trained in (False, True):
      measure(shape, trained)


def measure(shape, trained):
  """Prints the table's line for one shape and state."""
  n, d, f = shape
  x = update.inputs(n, d)
  sae = update.start(x, f, trained)
  ours, theirs, limit = turns.take(
    (update.turn(sae, x), saelens(sae, x), product.turn(*shape))
  )
  flops = product.flops(*shape) / 1e9
  seconds = statistics.median(ours)
  rate, most = product.IN_AN_UPDATE * flops / seconds, flops / min(limit)
  table.row(
    *shape,
    f"L0 {update.L0}" if trained else "initial",
    f"{1e3 * seconds:.0f}",
    f"{1e3 * statistics.median(theirs):.0f}",
    f"{turns.ratio(theirs, ours):.2f}",
    f"{rate:.0f}",
    f"{most:.0f}",
    f"{rate / most:.0%}",
  )


def saelens(sae, x):
  """Returns a function that does one update with SAELens' trainer."""
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


if __name__ == "__main__":
  main()
