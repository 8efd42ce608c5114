"""The settings of a finished run that may differ whenever it is opened."""

import dataclasses
import math
from typing import Self

import jax

from jaxsae import overrides
from jaxsae.mesh import MeshConfig
from jaxsae.overrides import Place, PlaceOrEmpty
from jaxsae.train.config.run import EvalConfig, TrainConfig


@dataclasses.dataclass(frozen=True)
class TextPlace:
  """The places of a run's text and of its tokens."""

  source: PlaceOrEmpty = (
    ""  # the text that the run was trained on, wherever it is now
  )
  cache: PlaceOrEmpty = ""  # folder of tokenised corpora
  text_column: Place = "text"  # column of .parquet and .arrow files

  def __post_init__(self):
    overrides.check(self)


@dataclasses.dataclass(frozen=True)
class RunSettings:
  """The places of a run's data, its mesh, and how it is evaluated.

  By default all are the run's own, apart from the mesh, which has all devices
  that there are.
  """

  lm: PlaceOrEmpty = (
    ""  # the language model that it was trained on, wherever it is now
  )
  fsdp: bool = False  # shard the LM's weights over `data` too, to save memory
  data: TextPlace = TextPlace()
  mesh: MeshConfig = MeshConfig()
  eval: EvalConfig = EvalConfig()

  def __post_init__(self):
    overrides.check(self)

  @classmethod
  def of(cls, config: TrainConfig, mesh: MeshConfig | None = None) -> Self:
    """Returns a run's own settings.

    Args:
      config: the run's configuration.
      mesh: the mesh to open it on; by default all devices of today, with the
        `model` axis of training as far as there are enough.
    """
    model, text = math.gcd(config.mesh.model, jax.device_count()), config.data
    return cls(
      lm=config.lm,
      fsdp=config.fsdp,
      data=TextPlace(text.source, text.cache, text.text_column),
      mesh=mesh or MeshConfig(model=model),
      eval=config.eval,
    )

  def applied(self, config: TrainConfig) -> TrainConfig:
    """Returns a run's config with these settings."""
    text = dataclasses.replace(
      config.data,
      source=self.data.source,
      text_column=self.data.text_column,
      cache=self.data.cache,
    )
    return dataclasses.replace(
      config,
      lm=self.lm,
      fsdp=self.fsdp,
      data=text,
      mesh=self.mesh,
      eval=self.eval,
    )
