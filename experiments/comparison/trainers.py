"""The two sides of a comparison, ours and SAELens', trained on the same trial.

Both minimise squared error and a quadratic penalty on the distance of each
sample's L0 from a target (Gemma Scope 2). Kernel width, warm-ups, decay and
Adam are the same, and gradients are clipped at the same norm; all else is left
as each library has it. Our directions have unit norm, except in
`train_ours_free`. SAELens' may have any norm and start at a tenth, so that at
first a step of the same size turns them ten times as far.

Shapes: U updates, N samples per update, D site width, F latents.
"""

import dataclasses

import jax.numpy as jnp
import numpy as np
import torch
from sae_lens import (
  BatchTopKTrainingSAE,
  BatchTopKTrainingSAEConfig,
  JumpReLUTrainingSAE,
  JumpReLUTrainingSAEConfig,
)
from sae_lens.config import LoggingConfig, SAETrainerConfig
from sae_lens.training.sae_trainer import SAETrainer

from jaxsae.sae import Sae
from jaxsae.train import OptimConfig, SweepConfig
from jaxsae.train.arrays import train_on

SCALE_UPDATES = 16  # the scale is estimated on at most this many first updates
# Shares of the run: lr and λ rise at the start, lr falls to zero at the end.
WARMUP, DECAY = 0.1, 0.2
# ε where ‖x‖² is D, as in SAELens, whose default it is. Gemma Scope's 1e-3
# where ‖x‖² is 1 is nearly the same: 0.048 at D = 2304.
BANDWIDTH = 0.05
INITIAL_THRESHOLD = 0.01  # θ where ‖x‖² is D and directions start short
MOMENTUM = 0.9  # Adam's β₁; SAELens' default
DEAD_AFTER = 100  # updates without firing that make a latent dead for AuxK


@dataclasses.dataclass(frozen=True)
class Trial:
  """The data and settings that one side trains with.

  Attributes:
    x: raw activations [U, N, D], float32; both sides see them in this order.
    width: number of latents F.
    targets: of L0; one autoencoder each.
    rate: the peak learning rate.
    sparsity_coefficient: λ where ‖x‖² is 1. Where ‖x‖² is D it is D times as
      large, as the squared error is.
    decay: of Adam's second moment.
    seed: of the initial weights.
  """

  x: np.ndarray
  width: int
  targets: tuple[float, ...]
  rate: float
  sparsity_coefficient: float
  decay: float
  seed: int

  @property
  def scale_sample(self) -> np.ndarray:
    """The first updates' activations, on which the scale is estimated."""
    return self.x[:SCALE_UPDATES]


def train_ours(trial: Trial, **overrides) -> list[Sae]:
  """Trains our JumpReLU for all targets as one stack.

  Args:
    trial: data and settings.
    **overrides: fields of `SweepConfig` that differ from the defaults here.

  Returns:
    An autoencoder of raw activations for each target.
  """
  sample = trial.scale_sample.reshape(-1, trial.x.shape[-1])
  sweep = our_sweep(trial, **overrides)
  saes = train_on(sweep, iter(trial.x), sample, updates=len(trial.x))
  return list(saes.values())


def train_ours_free(trial: Trial) -> list[Sae]:
  """Trains our JumpReLU with directions of any norm, starting as SAELens'."""
  threshold = INITIAL_THRESHOLD / trial.x.shape[-1] ** 0.5
  return train_ours(
    trial, architecture="free_jumprelu", initial_threshold=threshold
  )


def train_our_batch_topk(trial: Trial) -> list[Sae]:
  """Trains our BatchTopK, with AuxK for latents dead for DEAD_AFTER updates."""
  wake_after = DEAD_AFTER * trial.x.shape[1]
  return train_ours(
    trial, architecture="batch_topk", penalty="l0", wake_after=wake_after
  )


def our_sweep(trial: Trial, **overrides) -> SweepConfig:
  """Our side's sweep; `overrides` are fields of it."""
  updates, _, d = trial.x.shape
  bandwidth = BANDWIDTH / d**0.5
  defaults = {
    "widths": (trial.width,),
    "penalty": "quadratic",
    "target_l0": trial.targets,
    "sparsity_coefficient": (trial.sparsity_coefficient,),
    "bandwidth": bandwidth,
    "initial_threshold": bandwidth,
    "seeds": (trial.seed,),
    "optim": OptimConfig(
      lr=trial.rate,
      lr_warmup=int(WARMUP * updates),
      lr_decay=DECAY,
      sparsity_warmup=int(WARMUP * updates),
      b1=MOMENTUM,
      b2=trial.decay,
      clip=1 / d,  # SAELens' 1 where ‖x‖² is D
      vector_rate=d**-0.5,
    ),
  }
  return SweepConfig(**(defaults | overrides))


def train_saelens(trial: Trial) -> list[Sae]:
  """Trains SAELens' JumpReLU, one target after another, on raw activations."""
  return [from_saelens(fit(trial, target)) for target in trial.targets]


def train_saelens_batch_topk(trial: Trial) -> list[Sae]:
  """Trains SAELens' BatchTopK, converted to a JumpReLU as SAELens saves it."""
  return [fit_batch_topk(trial, target) for target in trial.targets]


def fit(trial: Trial, target: float) -> JumpReLUTrainingSAE:
  """Trains one JumpReLU of SAELens."""
  updates, _, d = trial.x.shape
  torch.manual_seed(trial.seed)
  sae = JumpReLUTrainingSAE(
    JumpReLUTrainingSAEConfig(
      d_in=d,
      d_sae=trial.width,
      normalize_activations="expected_average_only_in",
      jumprelu_bandwidth=BANDWIDTH,
      jumprelu_init_threshold=INITIAL_THRESHOLD,
      jumprelu_sparsity_loss_mode="quadratic",
      target_l0=target,
      l0_coefficient=d * trial.sparsity_coefficient,
      l0_warm_up_steps=int(WARMUP * updates),
    )
  )
  return run(trial, sae)


def fit_batch_topk(trial: Trial, target: float) -> Sae:
  """Trains one BatchTopK of SAELens, and returns it in our form."""
  torch.manual_seed(trial.seed)
  sae = run(
    trial,
    BatchTopKTrainingSAE(
      BatchTopKTrainingSAEConfig(
        d_in=trial.x.shape[-1],
        d_sae=trial.width,
        k=target,
        normalize_activations="expected_average_only_in",
      )
    ),
  )
  arrays = sae.state_dict()
  sae.process_state_dict_for_saving_inference(arrays)
  return as_ours(arrays)


def run(trial: Trial, sae):
  """Trains an autoencoder of SAELens with SAELens' trainer."""
  updates, batch, _ = trial.x.shape
  # The trainer estimates the scale on the first batches of its data.
  batches = map(torch.from_numpy, (*trial.scale_sample, *trial.x))
  config = SAETrainerConfig(
    total_training_samples=updates * batch,
    train_batch_size_samples=batch,
    lr=trial.rate,
    lr_end=trial.rate,
    lr_warm_up_steps=int(WARMUP * updates),
    lr_decay_steps=int(DECAY * updates),
    adam_beta1=MOMENTUM,
    adam_beta2=trial.decay,
    n_batches_for_norm_estimate=len(trial.scale_sample),
    dead_feature_window=DEAD_AFTER,
    feature_sampling_window=2 * updates,
    logger=LoggingConfig(log_to_wandb=False),
  )
  return SAETrainer(cfg=config, sae=sae, data_provider=batches).fit()


def from_saelens(sae: JumpReLUTrainingSAE) -> Sae:
  """SAELens' autoencoder in our form."""
  return as_ours(sae.state_dict())


def as_ours(arrays: dict[str, torch.Tensor]) -> Sae:
  """SAELens' arrays in our form, where the encoder reads x, not x - b_dec."""
  array = lambda name: jnp.asarray(arrays[name].detach().numpy().copy())
  w_enc, b_dec = array("W_enc"), array("b_dec")
  return Sae(
    w_enc=w_enc,
    b_enc=array("b_enc") - b_dec @ w_enc,
    w_dec=array("W_dec"),
    b_dec=b_dec,
    threshold=array("threshold"),
  )
