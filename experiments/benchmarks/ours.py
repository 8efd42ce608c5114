"""Our training, one bucket at a time, out of the pieces of a run's loop."""

import dataclasses

import jax
import numpy as np

from experiments.benchmarks.settings import Settings
from jaxsae import mesh as meshes
from jaxsae.data import DataConfig
from jaxsae.lm import Lm, Site, load_lm
from jaxsae.mesh import MeshConfig
from jaxsae.sae import Sae
from jaxsae.sae.stack import member
from jaxsae.train import loop, sources, step
from jaxsae.train import state as states
from jaxsae.train.checkpoint.checkpoints import Checkpoints
from jaxsae.train.config import run as configs
from jaxsae.train.group import place_stacks
from jaxsae.train.placement.select import bucket_dtype


@dataclasses.dataclass(frozen=True)
class Member:
  """One autoencoder before its first update."""

  site: Site
  target: float  # of L0
  scale: float  # what the site's activations are divided by
  sae: Sae  # of NumPy arrays


class Training:
  """A run that has not begun; `turn` trains on the next bucket.

  Attributes:
    settings: what it does.
    lm: the language model.
    members: the autoencoders as they are at the start.
    l0: theirs, in the bucket that was last trained on.
  """

  def __init__(self, settings: Settings):
    self.settings, self._config = settings, configure(settings)
    self._mesh = meshes.make(self._config.mesh)
    self.lm: Lm = load_lm(settings.lm, mesh=self._mesh)
    self._rows = loop.open_corpus(self._config, self.lm).train
    self._batches = self._open_batches()
    bucket = self._next_bucket()
    self._state = self._begin(bucket)
    self.members = tuple(self._members())
    dtype = bucket_dtype(self._config, self.lm)
    groups = place_stacks(self._config, self._mesh, self._state.stacks, dtype)
    self._step = step.compile_step(
      self._read, groups, self._state, self.lm, bucket
    )

  def turn(self) -> None:
    bucket = self._next_bucket()
    self._state, metrics = self._step(self._state, self.lm, bucket)
    jax.block_until_ready(self._state)
    self.l0 = [float(l0) for stack in metrics for l0 in stack.l0]

  def save(self, checkpoints: Checkpoints) -> None:
    """Starts to save, as the loop does."""
    checkpoints.save(self._state, self._batches.get_state())

  def read_tokens(self, buckets: int) -> np.ndarray:
    """The rows of the first so many buckets, int [R, T]."""
    batches = self._open_batches()
    return np.concatenate([next(batches).tokens for _ in range(buckets)])

  def _read(self, lm, bucket):
    return step.read_bucket(self._config, self._mesh, lm, bucket)

  def _open_batches(self):
    return sources.open_batches(self._config, self._mesh, self._rows)

  def _next_bucket(self):
    return sources.next_bucket(self._config, self._mesh, self._batches)

  def _begin(self, bucket):
    def begin(lm, bucket):
      scales = step.estimate_scales(self._read(lm, bucket))
      widths = {site: site.width(lm.config) for site in scales}
      seed = self._config.data.seed
      return states.init(self._config.stacks, seed, widths, scales)

    shapes = jax.eval_shape(begin, self.lm, bucket)
    layout = states.sharding(shapes, self._mesh)
    return jax.jit(begin, out_shardings=layout)(self.lm, bucket)

  def _members(self):
    stacks = zip(self.settings.sites, self._state.stacks, strict=True)
    for site, stack in stacks:
      for i, target in enumerate(self.settings.targets):
        # Copies: the first step takes the state's memory.
        sae = jax.tree.map(np.array, member(stack.sae, i))
        yield Member(site, target, float(stack.scale[i]), sae)


def configure(settings: Settings) -> configs.TrainConfig:
  """The settings in our words, for one device."""
  return configs.TrainConfig(
    lm=settings.lm,
    data=DataConfig(
      source=settings.source, context=settings.context, cache=settings.cache
    ),
    sae=configs.SweepConfig(
      sites=settings.sites,
      widths=(settings.width,),
      penalty="quadratic",
      target_l0=settings.targets,
      sparsity_coefficient=(settings.sparsity_coefficient,),
      bandwidth=settings.bandwidth,
      initial_threshold=settings.threshold,
      optim=configs.OptimConfig(
        lr=settings.lr,
        lr_warmup=settings.lr_warmup,
        sparsity_warmup=settings.sparsity_warmup,
        b2=settings.b2,
      ),
    ),
    bucket=configs.BucketConfig(
      microbatches=settings.microbatches,
      rows=settings.rows,
      update_tokens=settings.update_tokens,
    ),
    mesh=MeshConfig(data=1, model=1),
  )
