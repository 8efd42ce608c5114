"""SAELens' side of a comparison: training, one bucket at a time.

SAELens' runners set up the model, the activations store and the autoencoders; a
turn repeats the body of its trainers' loop. It starts from our weights and
thresholds on our tokens, and scales activations as we do, so that the penalty,
λ, ε and θ mean the same on both sides. Left as SAELens has it: gradients are
clipped, directions may have any norm, and BOS is trained on too.
"""

import contextlib
import logging
import warnings

import numpy as np
import torch
from datasets import Dataset
from sae_lens import (
  JumpReLUTrainingSAE,
  JumpReLUTrainingSAEConfig,
  LanguageModelSAERunnerConfig,
  LanguageModelSAETrainingRunner,
  MultiSAETrainingRunner,
  MultiSAETrainingRunnerConfig,
)
from sae_lens.config import LoggingConfig
from sae_lens.training.multi_sae_trainer import MultiSAETrainer
from sae_lens.training.sae_trainer import SAETrainer

from experiments.benchmarks.ours import Member, Training
from experiments.benchmarks.settings import Settings
from jaxsae.lm import Site, capture, save_lm
from jaxsae.lm.sites import HUGGING_FACE

BUCKETS = 10  # buckets in the dataset, which is read again and again
TOLERANCE = 1e-4  # of activations, as a share of the largest


class SingleTraining:
  """SAELens' LanguageModelSAETrainingRunner, on a sweep of one autoencoder.

  Attributes:
    saes: {name: autoencoder in training}.
    l0: L0 of each, in the last update.
  """

  def __init__(self, training: Training, folder):
    ((name, member),) = names(training).items()
    cfg = LanguageModelSAERunnerConfig(
      sae=sae_config(training.settings, member),
      hook_name=hook(member.site),
      **run_config(training, folder),
    )
    self._updates = training.settings.updates
    self.saes = {name: build(cfg.sae, member)}
    with quiet():
      runner = LanguageModelSAETrainingRunner(
        cfg,
        override_dataset=dataset(training),
        override_sae=self.saes[name],
      )
    check(training, runner.model)
    self._data = runner.activations_store
    self._trainer = SAETrainer(
      cfg.to_sae_trainer_config(), runner.sae, self._data
    )
    self._trainer.activation_scaler.scaling_factor = 1 / member.scale

  def turn(self) -> None:
    for _ in range(self._updates):
      self._trainer.maybe_reset_sparsity()
      output = self._trainer.step(next(self._data))
      self._trainer.n_training_steps += 1
    self.l0 = [l0(output)]


class SweepTraining:
  """SAELens' MultiSAETrainingRunner; attributes as of `SingleTraining`."""

  def __init__(self, training: Training, folder):
    members = names(training)
    cfg = MultiSAETrainingRunnerConfig(
      saes={n: sae_config(training.settings, m) for n, m in members.items()},
      hook_names={name: hook(m.site) for name, m in members.items()},
      **run_config(training, folder),
    )
    self._updates = training.settings.updates
    self.saes = {n: build(cfg.saes[n], m) for n, m in members.items()}
    with quiet():
      runner = MultiSAETrainingRunner(
        cfg,
        override_dataset=dataset(training),
        override_saes=self.saes,
      )
    check(training, runner.model)
    self._hooks = cfg.hook_names_per_sae
    self._data = runner.activations_store.get_multi_hook_data_loader()
    self._trainer = MultiSAETrainer(
      cfg=cfg.to_sae_trainer_config(),
      saes=self.saes,
      hook_names=self._hooks,
      data_provider=self._data,
    )
    for name, trainer in self._trainer.trainers.items():
      trainer.activation_scaler.scaling_factor = 1 / members[name].scale

  def turn(self) -> None:
    trainers = self._trainer.trainers
    for _ in range(self._updates):
      self._trainer._maybe_log_sparsity()
      batch = next(self._data)
      outputs = [t.step(batch[self._hooks[n]]) for n, t in trainers.items()]
      for trainer in trainers.values():
        trainer.n_training_steps += 1
    self.l0 = [l0(output) for output in outputs]


def names(training: Training) -> dict[str, Member]:
  return {f"{m.site}/{m.target:g}": m for m in training.members}


def hook(site: Site) -> str:
  """Returns the module of Hugging Face's model whose output a site is."""
  module, _, kind = HUGGING_FACE[site.where].rpartition(".")
  assert kind == "output", f"SAELens reads no module's input, so not {site}"
  return module.format(layer=site.layer)


def sae_config(settings: Settings, member: Member) -> JumpReLUTrainingSAEConfig:
  width, depth = member.sae.w_dec.shape
  return JumpReLUTrainingSAEConfig(
    d_in=depth,
    d_sae=width,
    apply_b_dec_to_input=True,
    normalize_activations="none",  # the trainer applies our scale
    jumprelu_bandwidth=settings.bandwidth,
    jumprelu_sparsity_loss_mode="quadratic",
    target_l0=member.target,
    l0_coefficient=settings.sparsity_coefficient,
    l0_warm_up_steps=settings.sparsity_warmup,
  )


def run_config(training: Training, folder) -> dict:
  """Returns settings of either runner; writes our model into the folder."""
  settings = training.settings
  save_lm(training.lm, folder, dtype=np.float32)
  return {
    "model_name": str(folder),
    "model_class_name": "AutoModelForCausalLM",
    "model_from_pretrained_kwargs": {
      # The only implementation that Hugging Face's Gemma 2 has.
      "attn_implementation": "eager",
      "dtype": "float32",
    },
    "context_size": settings.context,
    "store_batch_size_prompts": settings.rows,
    "n_batches_in_buffer": settings.bucket_rows,  # counts rows
    "training_tokens": 10**9,
    "train_batch_size_tokens": settings.update_tokens,
    "adam_beta1": 0.0,
    "adam_beta2": settings.b2,
    "lr": settings.lr,
    "lr_warm_up_steps": settings.lr_warmup,
    "checkpoint_path": None,
    "output_path": None,
    "logger": LoggingConfig(log_to_wandb=False),
  }


def dataset(training: Training) -> Dataset:
  return Dataset.from_dict({"input_ids": training.read_tokens(BUCKETS)})


def build(
  config: JumpReLUTrainingSAEConfig, member: Member
) -> JumpReLUTrainingSAE:
  """Makes SAELens' autoencoder with our weights and thresholds."""
  sae = JumpReLUTrainingSAE(config)
  with torch.no_grad():
    for name in ("w_enc", "b_enc", "w_dec", "b_dec", "threshold"):
      value = torch.tensor(getattr(member.sae, name))
      getattr(sae, name.replace("w_", "W_")).copy_(value)
  return sae


def check(training: Training, model) -> None:
  """Asserts that both models have the same activations at every site."""
  tokens = training.read_tokens(1)[:2]
  ours = capture(training.lm, tokens, *training.settings.sites)
  hooks = {site: hook(site) for site in ours}
  with torch.no_grad():
    _, theirs = model.run_with_cache(
      torch.tensor(tokens), names_filter=list(hooks.values())
    )
  for site, x in ours.items():
    furthest = np.abs(x - theirs[hooks[site]].numpy()).max()
    assert furthest < TOLERANCE * np.abs(x).max(), f"{site} is {furthest} off"


def l0(output) -> float:
  return float((output.feature_acts > 0).sum(-1).float().mean())


@contextlib.contextmanager
def quiet():
  """Silences warnings that model and text are not SAELens' own."""
  logging.disable(logging.WARNING)
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    yield
  logging.disable(logging.NOTSET)
