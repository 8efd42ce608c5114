"""Everything that decides a training run."""

import dataclasses
from typing import Literal

from jaxsae.data import DataConfig
from jaxsae.errors import UserError
from jaxsae.lm import Site
from jaxsae.mesh import MeshConfig
from jaxsae.sae import Kernel, Objective
from jaxsae.sae.penalty import (
  L0,
  BatchQuadratic,
  Frequency,
  Penalty,
  Quadratic,
  Tanh,
)

_PENALTIES: dict[str, Penalty] = {
  "l0": L0(),
  "quadratic": Quadratic(),
  "batch_quadratic": BatchQuadratic(),
  "tanh": Tanh(),
}


def _positive(config, *names: str) -> None:
  for name in names:
    value = getattr(config, name)
    values = value if isinstance(value, tuple) else (value,)
    if any(v <= 0 for v in values):
      raise UserError(f"{name}={value} must be above zero.")


@dataclasses.dataclass(frozen=True)
class SweepConfig:
  """Which autoencoders: every site × width × sparsity, from one LM forward.

  Sparsity is a list of coefficients, or a list of targets for a penalty that
  pulls to them. Defaults are Gemma Scope's (arXiv 2408.05147 §3.2), for inputs
  of unit mean squared norm.
  """

  sites: tuple[Site, ...] = (Site("resid", 12),)  # as in resid.12,mlp.12
  widths: tuple[int, ...] = (16_384,)  # latents
  # What sparsity costs. l0: each active latent alike. tanh: the same, but bent
  # and smooth. quadratic: how far each token's L0 is from its target.
  # batch_quadratic: how far the mean L0 of an update is.
  penalty: Literal["l0", "quadratic", "batch_quadratic", "tanh"] = "l0"
  # One autoencoder each, for the two quadratic penalties; else empty.
  target_l0: tuple[float, ...] = ()
  # λ. Without targets one autoencoder each; with targets a single value, the
  # strength of the pull to them.
  sparsity_coefficient: tuple[float, ...] = (6e-4,)
  # ω: each latent also pays λ p²/ω, for p the share of tokens it is active on,
  # so that few are active nearly always. None: it does not.
  frequency_scale: float | None = None
  bandwidth: float = 1e-3  # ε of the straight-through kernel
  ste_to_input: bool = False  # the kernel's gradients train encoders too
  initial_threshold: float = 1e-3  # θ at the start
  # Tokens without firing after which a latent's threshold sinks until it fires
  # again. None: never, as in Gemma Scope.
  wake_after: int | None = None
  seed: int = 0  # of the initial weights and the shuffle

  def __post_init__(self):
    if not self.sites or not self.widths:
      raise UserError("A sweep needs at least one site and one width.")
    if len(set(self.sites)) < len(self.sites):
      raise UserError("A site is named twice in sites; name each once.")
    if len(set(self.widths)) < len(self.widths):
      raise UserError("A width is named twice in widths; name each once.")
    _positive(self, "widths", "target_l0", "sparsity_coefficient")
    _positive(self, "bandwidth")
    if self.frequency_scale is not None:
      _positive(self, "frequency_scale")
    self._check_targets()
    if not self.sparsity_coefficient:
      raise UserError("sparsity_coefficient is empty; give at least one λ.")

  def _check_targets(self):
    if self.penalty not in _PENALTIES:
      raise UserError(
        f"penalty={self.penalty!r} is none of {', '.join(_PENALTIES)}."
      )
    pulls = _PENALTIES[self.penalty].pulls_to_target
    if self.target_l0 and not pulls:
      targets = ",".join(f"{target:g}" for target in self.target_l0)
      raise UserError(
        f"target_l0={targets} is not looked at by penalty={self.penalty}; add"
        " --sae.penalty=quadratic (or batch_quadratic) to pull L0 there, or"
        " --sae.target_l0= to let λ decide."
      )
    if pulls and not self.target_l0:
      raise UserError(
        f"penalty={self.penalty} pulls L0 to targets and there are none; add"
        " e.g. --sae.target_l0=32,64."
      )
    if self.target_l0 and len(self.sparsity_coefficient) != 1:
      raise UserError(
        f"sparsity_coefficient has {len(self.sparsity_coefficient)} values;"
        " with target_l0 give one, the strength of the pull."
      )

  @property
  def size(self) -> int:
    """Autoencoders in a stack."""
    return len(self.target_l0 or self.sparsity_coefficient)

  @property
  def stacks(self) -> tuple["Stack", ...]:
    """One stack for each site and width."""
    return tuple(
      Stack(site, width) for site in self.sites for width in self.widths
    )

  @property
  def objective(self) -> Objective:
    """What all of them minimise beside the squared error."""
    penalties = (_PENALTIES[self.penalty],)
    if self.frequency_scale is not None:
      penalties += (Frequency(self.frequency_scale),)
    return Objective(Kernel(self.bandwidth, self.ste_to_input), penalties)

  @property
  def coefficients(self) -> tuple[float, ...]:
    """λ of each member of a stack."""
    values = self.sparsity_coefficient
    return values * self.size if self.target_l0 else values

  @property
  def members(self) -> tuple[str, ...]:
    """The name of each member of a stack, as in l0_32 or lambda_0.0006."""
    if self.target_l0:
      return tuple(f"l0_{target:g}" for target in self.target_l0)
    return tuple(f"lambda_{value:g}" for value in self.sparsity_coefficient)


@dataclasses.dataclass(frozen=True)
class Stack:
  """The autoencoders of one site and width; they train as one array."""

  site: Site
  width: int

  def __str__(self) -> str:
    return f"{self.site}/{self.width}"


@dataclasses.dataclass(frozen=True)
class OptimConfig:
  """Adam without first moment, and the warm-ups, in updates.

  Defaults are Gemma Scope's (arXiv 2408.05147 §3.2).
  """

  lr: float = 7e-5  # peak learning rate
  lr_warmup: int = 1000  # updates; a cosine from a tenth of the peak
  lr_decay: float = 0.0  # last share of the run, in which lr falls to zero
  sparsity_warmup: int = 10_000  # updates; λ grows linearly from zero
  b2: float = 0.999  # decay of the second moment; there is no first
  eps: float = 1e-8  # keeps the step finite where gradients vanish

  def __post_init__(self):
    _positive(self, "lr")
    if not 0 <= self.lr_decay <= 1:
      raise UserError(f"lr_decay={self.lr_decay} is not a share from 0 to 1.")


@dataclasses.dataclass(frozen=True)
class BucketConfig:
  """One outer step: so many rows are read, shuffled and trained on.

  A bucket is `microbatches × rows × context` tokens.
  """

  microbatches: int = 8  # LM forward passes a bucket
  rows: int = 32  # sequences in one LM forward pass
  update_tokens: int = 4096  # tokens in one update of the autoencoders

  def __post_init__(self):
    _positive(self, "microbatches", "rows", "update_tokens")
    if self.update_tokens % self.rows:
      raise UserError(
        f"update_tokens={self.update_tokens} is not a multiple of"
        f" rows={self.rows}; every row gives the same share to an update."
      )


@dataclasses.dataclass(frozen=True)
class EvalConfig:
  """How much held-out text the autoencoders are judged and shown on."""

  batch: int = 32  # sequences at a time
  batches: int = 64  # for L0, FVU, density and the report's contexts
  loss_batches: int = 16  # of these, for losses with autoencoders spliced in

  def __post_init__(self):
    _positive(self, "batch", "batches", "loss_batches")


@dataclasses.dataclass(frozen=True)
class TrainConfig:
  """A run. `experiments/` has one file for each."""

  workdir: str = "runs/run"  # where everything the run makes is kept
  lm: str = "gemma2-tiny"  # name or directory of the language model
  tokens: int = 8_000_000  # how many to train on
  data: DataConfig = DataConfig()
  sae: SweepConfig = SweepConfig()
  optim: OptimConfig = OptimConfig()
  bucket: BucketConfig = BucketConfig()
  mesh: MeshConfig = MeshConfig()
  fsdp: bool = False  # split the LM's weights over `data` too, to save memory
  eval: EvalConfig = EvalConfig()
  dead_after: int = 10_000_000  # tokens without firing that make a latent dead
  log_every: int = 1  # buckets between two lines of metrics
  checkpoint_every: int = 100  # buckets between two checkpoints
  keep_checkpoints: int = 2  # so many of the newest

  def __post_init__(self):
    _positive(self, "tokens", "log_every", "checkpoint_every")
    _positive(self, "keep_checkpoints")
    per_lane = self.bucket.update_tokens // self.bucket.rows
    lane = self.bucket.microbatches * self.data.context
    if lane % per_lane:
      raise UserError(
        f"bucket.update_tokens={self.bucket.update_tokens} does not divide"
        f" the {self.bucket_tokens} tokens of a bucket (microbatches × rows ×"
        " context)."
      )

  @property
  def bucket_tokens(self) -> int:
    b = self.bucket
    return b.microbatches * b.rows * self.data.context

  @property
  def updates_per_bucket(self) -> int:
    return self.bucket_tokens // self.bucket.update_tokens

  @property
  def steps(self) -> int:
    """Outer steps, one bucket each."""
    return -(-self.tokens // self.bucket_tokens)

  @property
  def updates(self) -> int:
    return self.steps * self.updates_per_bucket
