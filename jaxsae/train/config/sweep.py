"""The configuration of a sweep, and the stacks that it trains as."""

import dataclasses
import itertools
import zlib
from typing import TYPE_CHECKING, Annotated, Any, Literal

from jaxsae import overrides
from jaxsae.lm import Site, Taps
from jaxsae.overrides import (
  Count,
  CountOrZero,
  Label,
  Positive,
  PositiveOrZero,
  Range,
  Seed,
  SettingError,
  Share,
)
from jaxsae.sae import ARCHITECTURES, Architecture, Kernel
from jaxsae.sae.penalty import (
  L0,
  BatchQuadratic,
  Frequency,
  Penalty,
  Quadratic,
  Tanh,
)

PENALTIES: dict[str, Penalty] = {
  "l0": L0(),
  "quadratic": Quadratic(),
  "batch_quadratic": BatchQuadratic(),
  "tanh": Tanh(),
}

# Configurations allow the names in the registry; a type checker sees a string.
if TYPE_CHECKING:
  ArchitectureName = str
else:
  ArchitectureName = Literal[tuple(ARCHITECTURES)]


# The settings that span the grid.
_GRID = (
  "sites",
  "widths",
  "target_l0",
  "sparsity_coefficient",
  "learning_rates",
  "seeds",
)

# The decay of a moment: float32 has no more numbers this near to one.
Decay = Annotated[float, Range(0, 0.999999)]


@dataclasses.dataclass(frozen=True)
class OptimConfig:
  """Settings of Adam and of the warm-ups, which are in updates.

  Defaults are Gemma Scope's (arXiv 2408.05147 §3.2).
  """

  lr: Positive = 7e-5  # peak learning rate
  lr_warmup: CountOrZero = 1000  # updates; a cosine from a tenth of the peak
  lr_decay: Share = 0.0  # final share of the run, in which lr falls to zero
  sparsity_warmup: CountOrZero = 10_000  # updates; λ grows linearly from zero
  b1: Decay = 0.0  # decay of the first moment; 0 keeps none
  b2: Decay = 0.999  # decay of the second moment
  eps: Positive = 1e-8  # keeps the step finite where gradients vanish
  clip: Positive | None = None  # largest norm of an autoencoder's gradient
  # Learning rate of biases and thresholds, relative to that of weights. 1/√D is
  # like training at a mean squared norm of D: Adam moves all numbers alike.
  vector_rate: Positive = 1.0

  def __post_init__(self):
    overrides.check(self)


@dataclasses.dataclass(frozen=True)
class Member:
  """One autoencoder of a stack; its members differ only in these.

  Attributes:
    coefficient: the sparsity coefficient λ.
    target: the target L0*, or None where λ alone decides.
    lr: the peak learning rate.
    seed: the seed of the initial weights.
    name: its name in the stack, as in l0_32 or lambda_0.0006.
  """

  coefficient: float
  target: float | None
  lr: float
  seed: int
  name: str


@dataclasses.dataclass(frozen=True)
class SweepConfig:
  """A grid of autoencoders: every site, width, sparsity, rate and seed.

  Sparsity is a list of coefficients, or a list of target L0s for penalties and
  architectures that use them. Defaults are Gemma Scope's (arXiv 2408.05147
  §3.2), for inputs of unit mean squared norm.
  """

  # Added to the names of the autoencoders. None: the architecture, unless it is
  # jumprelu.
  name: Label | None = None
  # free_jumprelu: directions start short and may have any norm.
  architecture: ArchitectureName = "jumprelu"
  # Where autoencoders read and write: resid, mlp, attn or mlp_in and a layer,
  # as in resid.12,mlp.12. transcoder.12 reads mlp_in.12 and writes mlp.12;
  # resid.12+resid.13 is one crosscoder of both; mlp_in.3:mlp.3+mlp.4 writes
  # others than it reads.
  sites: tuple[Taps, ...] = (Taps.of(Site("resid", 12)),)
  widths: tuple[Count, ...] = (16_384,)  # latents
  # Sparsity penalty of a JumpReLU. l0: the number of active latents. tanh: a
  # smooth, saturating L0. quadratic: the squared distance of each token's L0
  # from its target. batch_quadratic: that of an update's mean L0.
  penalty: Literal["l0", "quadratic", "batch_quadratic", "tanh"] = "l0"
  # Target L0s for the two quadratic penalties, one autoencoder each; for topk
  # and batch_topk, k. Otherwise empty.
  target_l0: tuple[Positive, ...] = ()
  # λ. Without targets, one autoencoder each; with targets, a single value: the
  # strength of the pull to them.
  sparsity_coefficient: tuple[Positive, ...] = (6e-4,)
  # ω: adds λ p²/ω for each latent, where p is the share of tokens on which it
  # is active, so that few latents are active nearly always. None: adds nothing.
  frequency_scale: Positive | None = None
  bandwidth: Positive = 1e-3  # ε of the straight-through kernel
  ste_to_input: bool = False  # the kernel's gradients train encoders too
  initial_threshold: PositiveOrZero = 1e-3  # θ at the start
  # Matryoshka: shares of the width, as in 0.0625,0.25, that must each
  # reconstruct alone. Empty: only the whole width.
  prefixes: tuple[Share, ...] = ()
  skip: bool = False  # transcoders add an affine map of their input
  # Tokens without firing after which a latent is revived: its threshold falls
  # until it fires, or, in topk and batch_topk, it learns from the error (AuxK).
  # None: never. published: as the architecture was published, which is never,
  # as in Gemma Scope, but 10 million in topk and batch_topk (arXiv 2406.04093).
  wake_after: Count | Literal["published"] | None = "published"
  # Peak learning rates, one autoencoder each. Empty: optim.lr.
  learning_rates: tuple[Positive, ...] = ()
  seeds: tuple[Seed, ...] = (0,)  # of the initial weights, one autoencoder each
  # How the autoencoders are sharded over the mesh. auto: as a cost model says.
  placement: Literal[
    "auto", "by_sae", "by_sae_and_latent", "by_latent", "by_latent_and_row"
  ] = "auto"
  optim: OptimConfig = OptimConfig()

  def __post_init__(self):
    # A `Site` stands for an autoencoder that reads and writes it.
    object.__setattr__(self, "sites", tuple(map(Taps.of, self.sites)))
    overrides.check(self)
    for name in ("sites", "widths", "seeds", "sparsity_coefficient"):
      self._check_given(name)
    for name in _GRID:
      self._check_distinct(name)
    self._check_targets()
    self._check_room()
    self._check_prefixes()
    if self.skip and not all(taps.transcodes for taps in self.sites):
      raise SettingError(
        self,
        "{skip} is for transcoders, and {sites} has others; name only"
        " transcoder sites, as in {sites:=transcoder.12}.",
      )

  def _check_given(self, name: str) -> None:
    if not getattr(self, name):
      raise SettingError(
        self, f"{{{name}}} is empty; a sweep needs at least one value of it."
      )

  def _check_distinct(self, name: str) -> None:
    """Raises SettingError if two values are one in an autoencoder's name."""
    values = [_label(value) for value in getattr(self, name)]
    twice = next((v for v in values if values.count(v) > 1), None)
    if twice is not None:
      once = ",".join(dict.fromkeys(values))
      raise SettingError(
        self,
        f"{{{name}}} has {twice} twice; give each once, as in"
        f" {{{name}:={once}}}.",
      )

  def _check_targets(self):
    needs = self._pulls_to_target
    by = "{penalty}" if self._has_penalties else "{architecture}"
    if self.target_l0 and not needs:
      way = ""
      if self._has_penalties:
        way = " {penalty:=quadratic} (or batch_quadratic) to pull L0 there, or"
      raise SettingError(
        self,
        f"{{target_l0}} is not used by {by}; add{way} {{target_l0:=}} to let λ"
        " decide.",
      )
    if needs and not self.target_l0:
      raise SettingError(
        self,
        f"{by} pulls L0 to targets, and there are none; add e.g."
        f" {{target_l0:={self._example_target()}}}.",
      )
    whole = ARCHITECTURES[self.architecture].whole_target
    if whole and any(t % 1 for t in self.target_l0):
      raise SettingError(
        self,
        f"{{target_l0}}: {self.architecture} counts latents, so give whole"
        " numbers.",
      )
    if self.target_l0 and len(self.sparsity_coefficient) != 1:
      raise SettingError(
        self,
        f"{{sparsity_coefficient}} has {len(self.sparsity_coefficient)} values;"
        " with {target_l0} give one, the strength of the pull.",
      )

  def _example_target(self) -> int:
    return min(32, *self.widths)

  def _check_room(self):
    """Raises SettingError if a target is more latents than there are."""
    least, most = min(self.widths), max(self.target_l0, default=0)
    if most > least:
      raise SettingError(
        self,
        f"{{target_l0}} asks for {most:g} active latents of {least}; give"
        f" targets up to {least}, or larger {{widths!s}}.",
      )

  @property
  def wakes_after(self) -> int | None:
    """Tokens without firing after which a latent is revived; None: never."""
    if self.wake_after == "published":
      return ARCHITECTURES[self.architecture].wake_after
    return self.wake_after

  @property
  def pulls_by_penalty(self) -> bool:
    """Whether a sparsity penalty, weighted by λ, pulls L0 to targets."""
    return self._has_penalties and self._pulls_to_target

  @property
  def _has_penalties(self) -> bool:
    fields = dataclasses.fields(ARCHITECTURES[self.architecture])
    return "penalties" in {field.name for field in fields}

  @property
  def _pulls_to_target(self) -> bool:
    if self._has_penalties:
      return PENALTIES[self.penalty].pulls_to_target
    return ARCHITECTURES[self.architecture].uses_target

  def _check_prefixes(self):
    ascend = all(a < b for a, b in itertools.pairwise((0, *self.prefixes, 1)))
    if not ascend:
      raise SettingError(
        self,
        "{prefixes} do not ascend between 0 and 1; give shares of the width, as"
        " in {prefixes:=0.0625,0.25}.",
      )
    for width in self.widths:
      ends = [round(p * width) for p in self.prefixes]
      if len({0, *ends, width}) < len(ends) + 2:
        raise SettingError(
          self,
          "{prefixes} must each have latents of their own, for which"
          f" {{widths:={width}}} is too small; make it larger.",
        )

  @property
  def members(self) -> tuple[Member, ...]:
    """The members of each stack: every sparsity, learning rate and seed."""
    rates = self.learning_rates or (self.optim.lr,)
    return tuple(
      Member(*sparsity, lr, seed, self._name(*sparsity, lr, seed))
      for sparsity in self._sparsities
      for lr in rates
      for seed in self.seeds
    )

  @property
  def _sparsities(self) -> list[tuple[float, float | None]]:
    """Pairs of sparsity coefficient λ and target L0*."""
    if self.target_l0:
      return [(self.sparsity_coefficient[0], t) for t in self.target_l0]
    return [(value, None) for value in self.sparsity_coefficient]

  def _name(self, coefficient, target, lr, seed) -> str:
    words = [f"lambda_{coefficient:g}" if target is None else f"l0_{target:g}"]
    if len(self.learning_rates) > 1:
      words.append(f"lr_{lr:g}")
    if len(self.seeds) > 1:
      words.append(f"seed_{seed}")
    return "_".join(words)

  @property
  def stacks(self) -> tuple["Stack", ...]:
    """One stack for each site and width."""
    return tuple(
      Stack(self, taps, width) for taps in self.sites for width in self.widths
    )


def _label(value: Any) -> str:
  """Returns a value as it is written in an autoencoder's name."""
  return f"{value:g}" if isinstance(value, float) else str(value)


@dataclasses.dataclass(frozen=True)
class Stack:
  """The autoencoders of one sweep, taps and width; they train as one array."""

  sweep: SweepConfig
  taps: Taps
  width: int

  def __str__(self) -> str:
    label = self.sweep.name
    if label is None and self.sweep.architecture != "jumprelu":
      label = self.sweep.architecture
    return "/".join([str(self.taps), str(self.width), *filter(None, [label])])

  @property
  def members(self) -> tuple[Member, ...]:
    """The autoencoders of the stack, S of them."""
    return self.sweep.members

  @property
  def names(self) -> tuple[str, ...]:
    """The full name of each member, as in resid.12/16384/l0_32."""
    return tuple(f"{self}/{member.name}" for member in self.members)

  @property
  def salt(self) -> int:
    """A number that makes initial weights differ between sites and widths."""
    return zlib.crc32(f"{self.taps}/{self.width}".encode())

  @property
  def architecture(self) -> Architecture:
    """The architecture of the members, with its settings."""
    kind = ARCHITECTURES[self.sweep.architecture]
    own = {field.name for field in dataclasses.fields(kind)}
    return kind(**{k: v for k, v in self._settings.items() if k in own})

  @property
  def _settings(self) -> dict[str, Any]:
    """The settings that fill the architecture's fields of the same names."""
    sweep = self.sweep
    return {
      "prefixes": sweep.prefixes,
      "transcodes": self.taps.transcodes,
      "skip": sweep.skip,
      "kernel": Kernel(sweep.bandwidth, sweep.ste_to_input),
      "penalties": _penalties(sweep),
      "threshold": sweep.initial_threshold,
    }


def _penalties(sweep: SweepConfig) -> tuple[Penalty, ...]:
  penalties: tuple[Penalty, ...] = (PENALTIES[sweep.penalty],)
  if sweep.frequency_scale is not None:
    penalties += (Frequency(sweep.frequency_scale),)
  return penalties
