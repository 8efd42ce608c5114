"""Our side of a comparison: training, one bucket at a time."""

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
from jaxsae.train import loop, step
from jaxsae.train.checkpoint.checkpoints import Checkpoints
from jaxsae.train.config import run as configs
from jaxsae.train.group import place_stacks
from jaxsae.train.placement.select import bucket_dtype
from jaxsae.train.sources.text import TextSource, open_batches
from jaxsae.train.state import abstract_state


@dataclasses.dataclass(frozen=True)
class Member:
  """One autoencoder before its first update."""

  site: Site
  target: float  # of L0
  scale: float  # what the site's activations are divided by
  sae: Sae  # of NumPy arrays


class Training:
  """A run that is trained one bucket at a time, made of the loop's own parts.

  Attributes:
    settings: its settings.
    lm: the language model.
    members: the autoencoders before the first update.
    l0: L0 of each, in the bucket last trained on.
  """

  def __init__(self, settings: Settings):
    self.settings, self._config = settings, configure(settings)
    self._mesh = meshes.make(self._config.mesh)
    self.lm: Lm = load_lm(settings.lm, mesh=self._mesh)
    self._rows = loop.open_corpus(self._config, self.lm).train
    self._source = TextSource(
      self._config, self._mesh, self.lm, self._open_batches()
    )
    shapes = abstract_state(self._config, self.lm.config, self._mesh)
    self._state = loop.begin(self._config, self._mesh, self._source, shapes)
    self.members = tuple(self._members())
    dtype = bucket_dtype(self._config, self.lm)
    groups = place_stacks(
      self._config.stacks,
      self._config.schedule,
      self._mesh,
      self._state.stacks,
      dtype,
    )
    self._step = step.compile_step(
      self._source.read,
      groups,
      self._state,
      self.lm,
      self._source.peek().batch,
    )

  def turn(self) -> None:
    """Trains on the next bucket and waits for it."""
    bucket = self._source.take()
    self._state, metrics = self._step(self._state, self.lm, bucket.batch)
    jax.block_until_ready(self._state)
    self.l0 = [float(l0) for stack in metrics for l0 in stack.l0]

  def save(self, checkpoints: Checkpoints) -> None:
    """Starts to save a checkpoint, as the loop does."""
    checkpoints.save(self._state, self._source.position)

  def read_tokens(self, buckets: int) -> np.ndarray:
    """Returns all rows of the first buckets, int [R, T]."""
    batches = self._open_batches()
    return np.concatenate([next(batches).tokens for _ in range(buckets)])

  def _open_batches(self):
    return open_batches(self._config, self._mesh, self._rows)

  def _members(self):
    stacks = zip(self.settings.sites, self._state.stacks, strict=True)
    for site, stack in stacks:
      for i, target in enumerate(self.settings.targets):
        # Copies, because the first step reuses the state's memory.
        sae = jax.tree.map(np.array, member(stack.sae, i))
        yield Member(site, target, float(stack.scale[i]), sae)


def configure(settings: Settings) -> configs.TrainConfig:
  """Returns our configuration for these settings, on one device."""
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
