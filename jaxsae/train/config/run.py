"""The configuration of a training run."""

import collections
import dataclasses
import itertools
from typing import Annotated, Literal

from jaxsae import overrides
from jaxsae.data import DataConfig
from jaxsae.lm import Site
from jaxsae.mesh import MeshConfig
from jaxsae.overrides import MOST, Count, Place, Range, SettingError
from jaxsae.train.config.bucket import BucketConfig as BucketConfig
from jaxsae.train.config.duration import Duration as Duration
from jaxsae.train.config.sweep import OptimConfig as OptimConfig
from jaxsae.train.config.sweep import Stack, SweepConfig


@dataclasses.dataclass(frozen=True)
class EvalConfig:
  """How much held-out text is used to evaluate and show the autoencoders."""

  batch: Count = 32  # sequences at a time
  batches: Count = 64  # for L0, FVU, density and the report's contexts
  loss_batches: Count = 16  # of these, for losses with autoencoders spliced in
  # Of these, for controls: autoencoders of the same L0 that learned nothing.
  control_batches: Count = 4

  def __post_init__(self):
    overrides.check(self)


@dataclasses.dataclass(frozen=True)
class Schedule:
  """The updates of a run.

  Attributes:
    updates: number of updates in the whole run.
    per_bucket: number of updates in one bucket.
    tokens: tokens in one update.
    precision: the precision of products, as in `TrainConfig`.
    skip_not_finite: whether an autoencoder skips an update whose loss, gradient
      or weights are not finite.
    max_norm: the largest norm of a token that counts, in medians, if any.
  """

  updates: int
  per_bucket: int
  tokens: int
  precision: str = "bfloat16"
  skip_not_finite: bool = False
  max_norm: float | None = None


@dataclasses.dataclass(frozen=True)
class TrainConfig:
  """The configuration of a run. `experiments/` has one file for each run."""

  workdir: Place = "runs/run"  # where everything the run makes is kept
  lm: Place = "gemma2-tiny"  # name or directory of the language model
  # To train on; rounded up to whole buckets.
  tokens: Annotated[int, Range(1, 10**15)] = 8_000_000
  # How often the text may be read to make up these tokens. None: any number.
  passes: Count | None = 1
  data: DataConfig = DataConfig()
  sae: SweepConfig = SweepConfig()
  also: tuple[
    SweepConfig, ...
  ] = ()  # more sweeps, fed by the same forward passes
  bucket: BucketConfig = BucketConfig()
  mesh: MeshConfig = MeshConfig()
  fsdp: bool = False  # shard the LM's weights over `data` too, to save memory
  eval: EvalConfig = EvalConfig()
  # A latent is dead after this many tokens without firing.
  dead_after: Count = 10_000_000
  # What to do if the loss, gradient or weights of an update are not finite.
  # stop: end the run before saving. skip: that autoencoder skips the update.
  not_finite: Literal["stop", "skip"] = "stop"
  # Buckets between two checks that replicas are equal on all devices, bit by
  # bit, those of the language model's weights included. None: before each
  # checkpoint.
  check_replicas_every: Count | None = None
  # Precision of the autoencoders' products in training, by JAX's name for it.
  # bfloat16: one pass, as fast as a TPU can. float32: six passes there. A CPU
  # always has float32, and GPUs have TF32 for bfloat16. What is judged or
  # published is computed in float32.
  precision: Literal["bfloat16", "bfloat16_3x", "float32"] = "bfloat16"
  # Tokens of a larger norm are not trained on, in units of the median norm at
  # their site in the bucket. None: all tokens of the text are.
  max_norm: Annotated[float, Range(1, 1e6)] | None = None
  log_every: Count = 1  # buckets between two lines of metrics
  # Between two checkpoints: a number of buckets, or a time, as in 20min.
  checkpoint_every: Count | Duration = 100
  keep_checkpoints: Count = 2  # how many of the newest to keep
  keep_every: Count | None = None  # also keep steps that are multiples of this
  # Folder of another run; a new run starts from its autoencoders' weights,
  # thresholds and scales. Or an autoencoder that load_sae takes, or a folder of
  # them, one for each site and width. None: random weights.
  start_from: Place | None = None

  def __post_init__(self):
    overrides.check(self)
    self._check_names()
    if self.bucket.is_fitted:
      self._check_share()
      self._check_updates()

  def _check_names(self):
    names = (name for stack in self.stacks for name in stack.names)
    name, count = collections.Counter(names).most_common(1)[0]
    if count > 1:
      which = max(
        i for i, sweep in enumerate(self.also) if name in _names(sweep)
      )
      raise SettingError(
        self,
        f"Two autoencoders would be called {name}; give one of the sweeps"
        f" another name, as in {{also[{which}].name:={self._free_name()}}}.",
      )

  def _free_name(self) -> str:
    """Returns a name that no sweep has."""
    taken = {sweep.name for sweep in (self.sae, *self.also)}
    names = (f"other{number}" for number in itertools.count(1))
    return next(name for name in names if name not in taken)

  def _check_share(self):
    per_row = self.microbatches * self.data.context
    if per_row % (self.update_tokens // self.rows):
      some = dataclasses.replace(self.bucket, update_tokens=None)
      fits = some.fitted(1, self.data.context).update_tokens
      raise SettingError(
        self,
        f"{{bucket.update_tokens}} does not divide the {self.bucket_tokens}"
        " tokens of a bucket (microbatches × rows × context) so that all rows"
        f" give the same share; use {{bucket.update_tokens:={fits}}}.",
      )

  def _check_updates(self):
    most = MOST // self.updates_per_bucket * self.bucket_tokens
    if self.updates > MOST:
      raise SettingError(
        self,
        f"{{tokens}} makes {self.updates:,} updates, more than can be counted;"
        f" use {{tokens:={most}}} or fewer.",
      )

  def fitted(self, shards: int) -> "TrainConfig":
    """Returns the config with a bucket that fits a mesh.

    The sizes of a bucket, and what follows from them, are only known then.

    Args:
      shards: the size of the mesh's `data` axis.
    """
    bucket = self.bucket.fitted(shards, self.data.context)
    try:
      return dataclasses.replace(self, bucket=bucket)
    except SettingError as error:
      raise error.typed() from None

  @property
  def microbatches(self) -> int:
    """Number of LM forward passes in a bucket."""
    return _known(self.bucket.microbatches)

  @property
  def rows(self) -> int:
    """Number of sequences in one LM forward pass."""
    return _known(self.bucket.rows)

  @property
  def update_tokens(self) -> int:
    """Number of tokens in one update."""
    return _known(self.bucket.update_tokens)

  @property
  def stacks(self) -> tuple[Stack, ...]:
    """The stacks of all sweeps."""
    return tuple(
      stack for sweep in (self.sae, *self.also) for stack in sweep.stacks
    )

  @property
  def sites(self) -> tuple[Site, ...]:
    """The sites of the language model that are read, each once."""
    sites = (site for stack in self.stacks for site in stack.taps.sites)
    return tuple(dict.fromkeys(sites))

  @property
  def bucket_tokens(self) -> int:
    """Number of tokens in a bucket."""
    return self.microbatches * self.rows * self.data.context

  @property
  def updates_per_bucket(self) -> int:
    """Number of updates in an outer step."""
    return self.bucket_tokens // self.update_tokens

  @property
  def steps(self) -> int:
    """Number of outer steps, one bucket each."""
    return -(-self.tokens // self.bucket_tokens)

  @property
  def updates(self) -> int:
    """Number of updates in the whole run."""
    return self.steps * self.updates_per_bucket

  @property
  def schedule(self) -> Schedule:
    """The updates of the run."""
    return Schedule(
      updates=self.updates,
      per_bucket=self.updates_per_bucket,
      tokens=self.update_tokens,
      precision=self.precision,
      skip_not_finite=self.not_finite == "skip",
      max_norm=self.max_norm,
    )


def _names(sweep: SweepConfig) -> list[str]:
  """Returns the names of a sweep's autoencoders."""
  return [name for stack in sweep.stacks for name in stack.names]


def _known(size: int | None) -> int:
  """Returns a size of the bucket, which must have been fitted to a mesh."""
  if size is None:
    raise ValueError("the bucket is not fitted to a mesh; call config.fitted")
  return size
