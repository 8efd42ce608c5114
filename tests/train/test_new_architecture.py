"""An architecture is one file and one entry in the registry."""

import dataclasses
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from jaxsae.lm import Site, Taps
from jaxsae.mesh import MeshConfig
from jaxsae.overrides import checks
from jaxsae.runs import open_run
from jaxsae.sae import ARCHITECTURES, Architecture, Sae, array_axes
from jaxsae.sae.architectures.architecture import update_stats
from jaxsae.sae.penalty import mean
from jaxsae.train import SweepConfig, train
from tests.train.toys import make_config

pytestmark = pytest.mark.slow

# Mesh and placement: latents over devices, and autoencoders over devices.
MESHES = {
  "by_latent": MeshConfig(data=2, model=4),
  "by_sae_and_latent": MeshConfig(data=4, model=2),
}


@struct.dataclass
class ToySae:
  w_enc: jax.Array
  b_enc: jax.Array
  w_dec: jax.Array
  b_dec: jax.Array
  gain: jax.Array
  w_skip: jax.Array | None = None


class LowGain:
  """Speaks when gains have fallen; they begin at 1."""

  def observe(self, step, figures):
    return f"the mean gain is {figures['gain']:.3f}." if step > 1 else None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Toy(Architecture):
  """ReLU with a learned gain for each latent."""

  name: ClassVar[str] = "toy"
  axes: ClassVar = Architecture.axes | {"gain": "F"}

  strength: float = 0.5

  def init(self, key, d_in, d, width):
    return ToySae(**self.start(key, d_in, d, width), gain=jnp.ones(width))

  def loss(self, params, tokens, inputs):
    latents = jax.nn.relu(self.encode(params, tokens.x)) * params.gain[None, :]
    error = self.squared_errors(params, latents, tokens)[-1]
    paid = self.strength * inputs.coefficient * jnp.sum(latents, axis=-1)
    value = mean(error + paid, tokens.mask)
    return value, update_stats(tokens, value, error, latents > 0)

  def diagnose(self, before, params, tokens, inputs):
    return {"gain": jnp.mean(params.gain)}

  def alarms(self, width, target):
    return (LowGain(),)

  def to_sae(self, params, target):
    return Sae(
      w_enc=params.w_enc * params.gain[None, :],
      b_enc=params.b_enc * params.gain,
      w_dec=params.w_dec,
      b_dec=params.b_dec,
      threshold=jnp.zeros_like(params.gain),
    )


def toy_with(axes):
  """Makes a toy that declares these axes."""
  return type("Other", (Toy,), {"name": "other", "axes": axes})


@pytest.fixture
def register(monkeypatch):
  """`register(kind)`: as if the registry had listed it from the start."""

  def of(kind):
    monkeypatch.setitem(ARCHITECTURES, kind.name, kind)
    names = Literal[tuple(ARCHITECTURES)]
    monkeypatch.setitem(SweepConfig.__annotations__, "architecture", names)
    checks._kinds.cache_clear()

  yield of
  monkeypatch.undo()
  checks._kinds.cache_clear()


@pytest.fixture
def toy_run(tmp_path, texts, lm_path, replace):
  """`toy_run(kind, …)`: two buckets of four autoencoders of one kind."""

  def of(kind, name="run", **fields):
    made = make_config(tmp_path, texts, lm_path)
    made = dataclasses.replace(
      made,
      workdir=str(tmp_path / name),
      tokens=2 * made.bucket_tokens,
      sae=dataclasses.replace(
        made.sae,
        architecture=kind.name,
        sites=(Site("resid", 1),),
        penalty="l0",
        target_l0=(),
        sparsity_coefficient=(1e-3, 1e-2, 3e-2, 0.1),
      ),
    )
    return replace(made, **fields)

  return of


def test_it_trains_alike_on_every_mesh_and_is_saved(register, toy_run, capsys):
  register(Toy)
  trained = []
  for placement, mesh in MESHES.items():
    config = toy_run(Toy, placement, mesh=mesh, sae__placement=placement)
    gain = train(config).stacks[0].sae.gain
    assert not gain.sharding.is_fully_replicated  # latents, over all devices
    trained.append(open_run(config.workdir).saes)
    assert "the mean gain is" in capsys.readouterr().out
  one, other = trained
  assert list(one) == list(other) and len(one) == 4
  for name, (site, sae) in one.items():
    assert "/toy/" in name and site == Taps.of(Site("resid", 1))
    assert np.abs(sae.b_dec).max() > 0  # it has learned
    for x, y in zip(*map(jax.tree.leaves, (sae, other[name][1])), strict=True):
      np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-3, err_msg=name)


@pytest.mark.parametrize(
  ("axes", "told"),
  [
    (Architecture.axes, r"'gain'.*\(4, 64\).*axes"),  # forgets the gain's
    (Toy.axes | {"w_enc": "F"}, r"w_enc"),  # one of two
    (Toy.axes | {"gain": "N"}, r"'gain'.*N|N.*'gain'"),  # no such axis
    (Toy.axes | {"w_enc": "FD"}, r"FD.*'w_enc'"),  # others have it as DF
    (Toy.axes | {"scale": "F"}, r"'scale'"),  # an array of the trainer's
  ],
)
def test_axes_that_are_not_declared_rightly_are_named(
  register, toy_run, axes, told
):
  kind = toy_with(axes)
  register(kind)
  with pytest.raises(ValueError, match=told):
    train(toy_run(kind))


def test_settings_of_the_sweep_fill_the_fields_of_their_name(register, toy_run):
  register(Toy)
  (stack,) = toy_run(Toy, sae__prefixes=(0.5,)).stacks
  assert stack.architecture == Toy(prefixes=(0.5,))


def test_the_architectures_of_the_house_agree_on_axes():
  axes = array_axes()
  assert axes["w_enc"] == "DF" and axes["r_mag"] == "F"
