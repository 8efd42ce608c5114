"""An architecture of one file trains once it is registered."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from jaxsae.data import DataConfig
from jaxsae.lm import Site
from jaxsae.mesh import MeshConfig
from jaxsae.sae import ARCHITECTURES, Architecture, Sae, array_axes
from jaxsae.sae.architectures.architecture import update_stats
from jaxsae.sae.penalty import mean
from jaxsae.train import BucketConfig, OptimConfig, SweepConfig, TrainConfig
from jaxsae.train.arrays import train_on

UPDATES, BATCH, D = 3, 32, 8


@struct.dataclass
class ToySae:
  w_enc: jax.Array
  b_enc: jax.Array
  w_dec: jax.Array
  b_dec: jax.Array
  gain: jax.Array
  w_skip: jax.Array | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Toy(Architecture):
  """ReLU with a learned gain for each latent."""

  name: ClassVar[str] = "toy"
  axes: ClassVar = Architecture.axes | {"gain": "F"}

  def init(self, key, d_in, d, width):
    return ToySae(**self.start(key, d_in, d, width), gain=jnp.ones(width))

  def loss(self, params, tokens, inputs):
    latents = jax.nn.relu(self.encode(params, tokens.x)) * params.gain[None, :]
    errors = self.squared_errors(params, latents, tokens)
    value = mean(errors[-1], tokens.mask)
    return value, update_stats(tokens, value, errors[-1], latents > 0)

  def fold(self, params, scale_in, scale_out, *, target=None):
    gained = Sae(
      w_enc=params.w_enc * params.gain[None, :],
      b_enc=params.b_enc * params.gain,
      w_dec=params.w_dec,
      b_dec=params.b_dec,
      threshold=jnp.zeros_like(params.gain),
    )
    return super().fold(gained, scale_in, scale_out)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Forgetful(Toy):
  """Does not declare the axes of its gain."""

  name: ClassVar[str] = "forgetful"
  axes: ClassVar = Architecture.axes


def train(kind, monkeypatch):
  monkeypatch.setitem(ARCHITECTURES, kind.name, kind)
  config = TrainConfig(
    tokens=UPDATES * BATCH,
    data=DataConfig(context=BATCH),
    sae=SweepConfig(
      architecture=kind.name,
      sites=(Site("resid", 0),),
      widths=(16,),
      optim=OptimConfig(lr=1e-2, lr_warmup=1),
    ),
    bucket=BucketConfig(microbatches=1, rows=1, update_tokens=BATCH),
    mesh=MeshConfig(1, 1),
  )
  x = jax.random.normal(jax.random.key(0), (UPDATES, BATCH, D))
  return train_on(config, iter(x), x[0])


def test_a_registered_architecture_trains(monkeypatch):
  ((name, sae),) = train(Toy, monkeypatch).items()
  assert "toy" in name
  assert sae.w_enc.shape == (D, 16)
  assert np.all(np.isfinite(sae.w_enc)) and np.any(sae.b_dec != 0)


def test_an_array_without_axes_is_named(monkeypatch):
  with pytest.raises(ValueError, match=r"gain.*axes"):
    train(Forgetful, monkeypatch)


def test_architectures_agree_on_axes(monkeypatch):
  class Contrary(Toy):
    name = "contrary"
    axes: ClassVar = Toy.axes | {"w_enc": "FD"}

  array_axes()
  monkeypatch.setitem(ARCHITECTURES, "contrary", Contrary)
  with pytest.raises(ValueError, match=r"w_enc.*Contrary"):
    array_axes()


def test_an_array_may_not_have_a_name_of_the_trainers(monkeypatch):
  class Taken(Toy):
    name = "taken"
    axes: ClassVar = Toy.axes | {"scale": "F"}

  with pytest.raises(ValueError, match=r"scale.*trainer"):
    train(Taken, monkeypatch)


def test_names_are_those_of_configurations():
  assert list(ARCHITECTURES) == [
    "jumprelu", "free_jumprelu", "relu", "gated", "topk", "batch_topk"
  ]  # fmt: skip
