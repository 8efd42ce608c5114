"""A run can start from autoencoders in any published format."""

import pathlib

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from jaxsae import formats
from jaxsae.errors import UserError
from jaxsae.formats import Published
from jaxsae.lm import Site, Taps
from jaxsae.lm.weights import read_sizes
from jaxsae.sae import Sae
from jaxsae.train import state as states
from jaxsae.train.checkpoint import start_from
from jaxsae.train.loop import train
from tests.train.checkpoint.test_corruption import bits
from tests.train.toys import start

pytestmark = pytest.mark.slow

WIDTH = 128


def drawn(d, k=None, skip=False, seed=0, width=WIDTH):
  """An autoencoder whose directions are unit, as most are published."""
  draw = np.random.default_rng(seed).normal
  w_dec = draw(size=(width, d))
  made = {
    "w_enc": draw(size=(d, width)),
    "b_enc": draw(size=width),
    "w_dec": w_dec / np.linalg.norm(w_dec, axis=1)[:, None],
    "b_dec": draw(size=d),
    "threshold": np.zeros(width) if k else np.abs(draw(size=width)),
  }
  if skip:
    made["w_skip"] = draw(size=(d, d))
  return Sae(**{n: x.astype(np.float32) for n, x in made.items()}, k=k)


@pytest.fixture
def config(made, replace, tmp_path):
  """A run of two autoencoders, of one site and width."""
  return replace(
    made.config,
    workdir=str(tmp_path / "run"),
    start_from=str(tmp_path / "published"),
  )


@pytest.fixture
def published(tmp_path):
  """`published(format, saes)`: writes autoencoders, place → one."""

  def write(format, saes):
    records = [
      Published(
        sae, Taps.of(place), metrics={"l0": 9.0}, before_gain=format in GAINLESS
      )
      for place, sae in saes
    ]
    formats.write_release(format, records, tmp_path / "published")

  return write


GAINLESS = ("gemma_scope", "circuit_tracer")
RESID = Site("resid", 1)


def started(config):
  """The state before the start from others, that after it, and the model."""
  mesh, source, fresh = start(config)
  lm = source.weights
  return fresh, start_from.take(config, mesh, lm, fresh), lm


def width_of(config):
  return read_sizes(config.lm).embed_dim


def assert_same(found, sae):
  for name in ("w_enc", "b_enc", "w_dec", "b_dec", "threshold"):
    np.testing.assert_allclose(
      getattr(found, name), getattr(sae, name), rtol=2e-5, atol=2e-5
    )


@pytest.mark.parametrize("format", ["gemma_scope", "gemma_scope_2", "sae_lens"])
def test_every_member_folds_to_the_autoencoder_again(config, published, format):
  sae = drawn(width_of(config))
  published(format, [(RESID, sae), (Site("attn", 0), drawn(7))])
  start_from.check(config)
  fresh, state, _ = started(config)
  (mine,), (random,) = state.stacks, fresh.stacks
  members = states.folded(config.stacks[0], mine)
  assert len(members) == 2
  for member in members.values():
    assert_same(member, sae)
  assert bits(mine.scale) == bits(random.scale)
  assert bits(mine.moments) == bits(random.moments)
  for x, y in zip(jax.tree.leaves(state), jax.tree.leaves(fresh), strict=True):
    assert x.sharding == y.sharding and x.dtype == y.dtype


def test_a_file_that_is_only_read_starts_a_topk(config, replace, tmp_path):
  """Here sparsify's, whose folder tells the layer."""
  config = replace(config, sae__architecture="topk", sae__penalty="l0")
  sae = drawn(width_of(config), k=5)
  folder = tmp_path / "published" / "layers.1"
  folder.mkdir(parents=True)
  b_enc = sae.b_enc + sae.b_dec @ sae.w_enc  # it takes b_dec from the input
  arrays = {
    "encoder.weight": np.ascontiguousarray(sae.w_enc.T),
    "encoder.bias": b_enc,
    "W_dec": sae.w_dec,
    "b_dec": sae.b_dec,
  }
  save_file(arrays, folder / "sae.safetensors")
  (folder / "cfg.json").write_text('{"activation": "topk", "k": 5}')
  _, state, _ = started(config)
  for member in states.folded(config.stacks[0], state.stacks[0]).values():
    np.testing.assert_allclose(member.w_enc, sae.w_enc, rtol=2e-4, atol=2e-4)
    np.testing.assert_allclose(member.b_enc, sae.b_enc, rtol=2e-4, atol=2e-4)


def test_a_set_of_transcoders_gets_the_gain_of_its_model(
  config, replace, published
):
  layers = (Taps.transcoder(0), Taps.transcoder(1))
  config = replace(config, sae__sites=layers[1:], sae__skip=True)
  saes = [drawn(width_of(config), skip=True, seed=n) for n in (0, 1)]
  published("circuit_tracer", list(zip(layers, saes, strict=True)))
  _, state, lm = started(config)
  gain = np.asarray(lm.norm_gain(layers[1].reads[0]))[:, None]
  for member in states.folded(config.stacks[0], state.stacks[0]).values():
    assert_same(member.replace(w_enc=gain * member.w_enc), saes[1])
    np.testing.assert_allclose(
      gain * member.w_skip, saes[1].w_skip, rtol=2e-5, atol=2e-5
    )


def test_it_trains(config, published, capsys):
  published("sae_lens", [(RESID, drawn(width_of(config)))])
  state = train(config)
  said = capsys.readouterr().out
  assert f"starts from {config.start_from}" in said
  assert int(state.step) == config.steps


@pytest.mark.parametrize(
  ("change", "saes", "told"),
  [
    ({}, [("resid.1", {"width": 64})], "no autoencoder for this run's resid.1"),
    ({}, [("resid.2", {})], "at resid.2"),
    ({}, [("resid.1", {}), ("resid.1", {"seed": 1})], "2 autoencoders for"),
    ({}, [("resid.1", {"k": 3})], "only topk"),
    (
      {"sae__architecture": "topk", "sae__penalty": "l0"},
      [("resid.1", {})],
      "can start topk",
    ),
    (
      {"sae__sites": (Taps.transcoder(1),)},
      [("transcoder.1", {"skip": True})],
      "--sae.skip=true",
    ),
  ],
)
def test_what_does_not_fit_is_refused_at_the_start(
  config, replace, published, change, saes, told
):
  config = replace(config, **change)
  d = width_of(config)
  published("sae_lens", [(place, drawn(d, **kind)) for place, kind in saes])
  with pytest.raises(UserError) as refused:
    train(config)
  assert told in str(refused.value) and "\n" not in str(refused.value)
  assert not pathlib.Path(config.workdir).exists()


def test_two_formats_in_one_folder_are_refused(config, published, tmp_path):
  d = width_of(config)
  published("sae_lens", [(RESID, drawn(d))])
  (folder,) = {file.parent for file in (tmp_path / "published").rglob("*.json")}
  formats.gemma_scope.write(drawn(d), folder / "params.npz")
  with pytest.raises(UserError, match="more than one format"):
    start_from.check(config)
