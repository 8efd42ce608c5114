"""The two sides of the comparison: each trains on the same trial.

Both minimise squared error and the quadratic pull of each sample's L0 to a
target (Gemma Scope 2). Kernel width, warm-ups, decay and Adam are the same, and
gradients are clipped at the same norm; the rest is each side's own. Ours have
unit directions but for `train_ours_free`. SAELens' have any norm and start at a
tenth, so that at first a step of the same size turns them ten times as far.

Shapes: U updates, N samples of each, D site width, F latents.
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

from jaxsae.data import DataConfig
from jaxsae.lm import Site
from jaxsae.mesh import MeshConfig
from jaxsae.sae import Sae
from jaxsae.train import BucketConfig, OptimConfig, SweepConfig, TrainConfig
from jaxsae.train.arrays import train_on

SCALED_BY = 16  # at most so many first updates give the scale of activations
WARM, DECAY = 0.1, 0.2  # shares of the run: lr and λ rise, lr falls to zero
# ε where ‖x‖² is D, as in SAELens, whose default it is. Gemma Scope's 1e-3
# where ‖x‖² is 1 is nearly the same: 0.048 at D = 2304.
BANDWIDTH = 0.05
START = 0.01  # θ there at the start, where directions are short
MOMENTUM = 0.9  # Adam's β₁; SAELens' default
IDLE = 100  # updates without firing that make a latent dead for AuxK


@dataclasses.dataclass(frozen=True)
class Trial:
  """What is given to train with.

  Attributes:
    x: raw activations [U, N, D], float32; both sides see them in this order.
    width: F.
    targets: of L0; one autoencoder each.
    rate: the peak learning rate.
    pull: λ where ‖x‖² is 1. It is D times that where ‖x‖² is D, as the squared
      error is.
    decay: of Adam's second moment.
    seed: of the initial weights.
  """

  x: np.ndarray
  width: int
  targets: tuple[float, ...]
  rate: float
  pull: float
  decay: float
  seed: int

  @property
  def first(self) -> np.ndarray:
    """What the scale of activations is taken from."""
    return self.x[:SCALED_BY]


def train_ours(trial: Trial, **recipe) -> list[Sae]:
  """Ours, all targets as one stack; autoencoders of raw activations.

  Args:
    trial: what to train with.
    **recipe: what of the sweep is otherwise.
  """
  first = trial.first.reshape(-1, trial.x.shape[-1])
  made = train_on(our_config(trial, **recipe), iter(trial.x), first)
  return list(made.values())


def train_ours_free(trial: Trial) -> list[Sae]:
  """The same with directions of any norm, which start as SAELens' do."""
  start = START / trial.x.shape[-1] ** 0.5
  return train_ours(
    trial, architecture="free_jumprelu", initial_threshold=start
  )


def train_our_batch_topk(trial: Trial) -> list[Sae]:
  """The same by BatchTopK, with AuxK for what has been idle for an update."""
  wake_after = IDLE * trial.x.shape[1]
  return train_ours(
    trial, architecture="batch_topk", penalty="l0", wake_after=wake_after
  )


def our_config(trial: Trial, **recipe) -> TrainConfig:
  updates, batch, d = trial.x.shape
  bandwidth = BANDWIDTH / d**0.5
  defaults = {
    "sites": (Site("resid", 0),),
    "widths": (trial.width,),
    "penalty": "quadratic",
    "target_l0": trial.targets,
    "sparsity_coefficient": (trial.pull,),
    "bandwidth": bandwidth,
    "initial_threshold": bandwidth,
    "seeds": (trial.seed,),
    "optim": OptimConfig(
      lr=trial.rate,
      lr_warmup=int(WARM * updates),
      lr_decay=DECAY,
      sparsity_warmup=int(WARM * updates),
      b1=MOMENTUM,
      b2=trial.decay,
      clip=1 / d,  # SAELens' 1 where ‖x‖² is D
      vector_rate=d**-0.5,
    ),
  }
  return TrainConfig(
    tokens=updates * batch,
    data=DataConfig(context=batch),
    sae=SweepConfig(**(defaults | recipe)),
    bucket=BucketConfig(microbatches=1, rows=1, update_tokens=batch),
    mesh=MeshConfig(1, 1),
  )


def train_saelens(trial: Trial) -> list[Sae]:
  """SAELens' trainer, one target after another; of raw activations too."""
  return [from_saelens(fit(trial, target)) for target in trial.targets]


def train_saelens_batch_topk(trial: Trial) -> list[Sae]:
  """The same by its BatchTopK, and as the JumpReLU it saves."""
  return [fit_batch_topk(trial, target) for target in trial.targets]


def fit(trial: Trial, target: float) -> JumpReLUTrainingSAE:
  updates, _, d = trial.x.shape
  torch.manual_seed(trial.seed)
  sae = JumpReLUTrainingSAE(
    JumpReLUTrainingSAEConfig(
      d_in=d,
      d_sae=trial.width,
      normalize_activations="expected_average_only_in",
      jumprelu_bandwidth=BANDWIDTH,
      jumprelu_init_threshold=START,
      jumprelu_sparsity_loss_mode="quadratic",
      target_l0=target,
      l0_coefficient=d * trial.pull,
      l0_warm_up_steps=int(WARM * updates),
    )
  )
  return run(trial, sae)


def fit_batch_topk(trial: Trial, target: float) -> Sae:
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
  """An autoencoder of theirs, trained."""
  updates, batch, _ = trial.x.shape
  # The trainer takes its scale from its own stream, so that comes first.
  batches = map(torch.from_numpy, (*trial.first, *trial.x))
  config = SAETrainerConfig(
    total_training_samples=updates * batch,
    train_batch_size_samples=batch,
    lr=trial.rate,
    lr_end=trial.rate,
    lr_warm_up_steps=int(WARM * updates),
    lr_decay_steps=int(DECAY * updates),
    adam_beta1=MOMENTUM,
    adam_beta2=trial.decay,
    n_batches_for_norm_estimate=len(trial.first),
    dead_feature_window=IDLE,
    feature_sampling_window=2 * updates,
    logger=LoggingConfig(log_to_wandb=False),
  )
  return SAETrainer(cfg=config, sae=sae, data_provider=batches).fit()


def from_saelens(sae: JumpReLUTrainingSAE) -> Sae:
  """The same autoencoder in our form."""
  return as_ours(sae.state_dict())


def as_ours(arrays: dict[str, torch.Tensor]) -> Sae:
  """SAELens' arrays in our form, in which the encoder sees x itself."""
  array = lambda name: jnp.asarray(arrays[name].detach().numpy().copy())
  w_enc, b_dec = array("W_enc"), array("b_dec")
  return Sae(
    w_enc=w_enc,
    b_enc=array("b_enc") - b_dec @ w_enc,
    w_dec=array("W_dec"),
    b_dec=b_dec,
    threshold=array("threshold"),
  )
