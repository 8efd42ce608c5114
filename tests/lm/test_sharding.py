"""Weights are divided as the mesh says, and results stay the same."""

import dataclasses
import math

import jax
import numpy as np
import pytest
from jax.sharding import AbstractMesh

from jaxsae import mesh as meshes
from jaxsae.errors import UserError
from jaxsae.lm import (
  Lm,
  Site,
  capture,
  edit,
  gemma2_2b,
  init_params,
  load_lm,
)
from jaxsae.lm.config import PUBLISHED
from jaxsae.lm.sharding import check_divides, placement, spec

pytestmark = pytest.mark.slow

# Which axis of each parameter is divided over `model`, and with `fsdp` over
# `data`.
DIVIDED = {
  "input_embedding": (0, 1),  # [V, D]
  "q_einsum": (0, 1),  # [N, D, H]
  "kv_einsum": (1, 2),  # [2, K, D, H]
  "qkv_einsum": (1, 2),  # [3, N, D, H]
  "attn_vec_einsum": (0, 2),  # [N, H, D]
  "gating_einsum": (1, 2),  # [2, F, D]
  "linear": (0, 1),  # [F, D]
}
MESHES = [(1, 1), (8, 1), (4, 2), (2, 4), (1, 8)]
FSDP = [(8, 1), (2, 4), (1, 8)]
CASES = [(mesh, False) for mesh in MESHES] + [(mesh, True) for mesh in FSDP]


def mesh(data, model):
  return meshes.make(meshes.MeshConfig(data, model))


def place(lm, mesh, fsdp=False):
  """Places the model on the mesh."""
  where = placement(lm.config, mesh, fsdp)

  def put(path, x):
    return jax.device_put(x, where(tuple(key.key for key in path)))

  params = jax.tree_util.tree_map_with_path(put, lm.params)
  return lm.replace(params=params, mesh=mesh)


# The numbers.


@pytest.fixture(scope="module", params=["gemma2", "gemma3"])
def shallow(request, tiny):
  """Makes two layers, one of each kind, whose heads eight devices can share."""
  if request.param == "gemma2":
    return tiny("grouped", num_layers=2, num_heads=16, num_kv_heads=8)
  return tiny("single_key", num_layers=2, num_heads=8, locals_per_global=1)


@pytest.fixture(scope="module")
def on_one_device(shallow, draw_tokens):
  """Computes everything on one device."""
  return sites_and_logits(shallow, draw_tokens(8, 16))


@pytest.mark.parametrize("shape, fsdp", CASES, ids=str)
def test_every_mesh_gives_the_same(
  shallow, on_one_device, draw_tokens, shape, fsdp
):
  sharded = place(shallow, mesh(*shape), fsdp)
  tokens = jax.device_put(
    draw_tokens(8, 16), meshes.shard(sharded.mesh, "data", None)
  )
  assert_close(sites_and_logits(sharded, tokens), on_one_device)


def test_rows_that_the_mesh_does_not_divide_run_too(
  shallow, on_one_device, draw_tokens
):
  sharded = place(shallow, mesh(2, 4), fsdp=True)
  found = sites_and_logits(sharded, draw_tokens(8, 16)[:3])
  assert_close(found, jax.tree.map(lambda x: x[:3], on_one_device))


@jax.jit
def sites_and_logits(lm, tokens):
  """Returns a site of each kind, and the logits after an edit of all."""
  seen = {}

  def change(site):
    return lambda x: 2 * seen.setdefault(str(site), x) + 1

  sites = Site("resid", 0), Site("mlp", 0), Site("attn", 1)
  logits = edit(lm, tokens, {site: change(site) for site in sites})
  return seen | {"logits": logits}


def assert_close(found, expected):
  for what, x in expected.items():
    np.testing.assert_allclose(found[what], x, 1e-5, 1e-5, what)


def test_a_sharded_model_is_read_outside_of_jit_too(tiny, draw_tokens):
  site, tokens = Site("resid", 0), draw_tokens(4, 16)
  lm = place(tiny("normed"), mesh(4, 2), fsdp=True)
  under_jit = jax.jit(capture, static_argnums=2)
  outside, inside = (
    read(lm, tokens, site)[site] for read in (capture, under_jit)
  )
  np.testing.assert_allclose(outside, inside, 1e-5, 1e-5)


# Placement of weights.


@pytest.mark.parametrize("fsdp", [False, True], ids=["", "fsdp"])
@pytest.mark.parametrize("shape", [(8, 1), (4, 2)], ids=str)
@pytest.mark.parametrize("name", ["normed", "full"])
def test_every_device_holds_its_part_alone(name, tiny, shape, fsdp):
  data, model = shape
  for path, x in leaves(place(tiny(name), mesh(data, model), fsdp)):
    expected = list(x.shape)
    axes = next((a for name, a in DIVIDED.items() if name in path), None)
    assert (axes is None) == (path[-1] == "scale")  # all but the norms
    if axes is not None:
      expected[axes[0]] //= model
      expected[axes[1]] //= data if fsdp else 1
    shapes = [shard.data.shape for shard in x.addressable_shards]
    assert shapes == [tuple(expected)] * 8, path


def leaves(lm):
  flat = jax.tree_util.tree_leaves_with_path(lm.params)
  return [(tuple(key.key for key in path), x) for path, x in flat]


def test_a_single_key_head_is_replicated(tiny):
  lm = place(tiny("single_key"), mesh(2, 4), fsdp=True)
  for path, x in leaves(lm):
    part = x.addressable_shards[0].data.shape
    if "kv_einsum" in path:
      assert part == (2, 1, 16, 16)  # of [2, 1, D = 32, 16]
    elif path[-1] != "scale":
      assert math.prod(part) == x.size // 8, path


def test_the_layout_of_the_2b_is_divided_too():
  path = ("layer_0", "mlp", "gating_einsum")  # [2, D, F]
  assert tuple(spec(path, gemma2_2b())) == (None, None, "model")
  assert tuple(spec(path, gemma2_2b(), fsdp=True)) == (None, "data", "model")


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_large_weight_is_divided(name):
  """Sixteen devices hold a sixteenth each, except of norms and single keys."""
  config = dataclasses.replace(PUBLISHED[name](), num_layers=2)
  where = placement(config, AbstractMesh((4, 4), ("data", "model")), fsdp=True)
  init = lambda key: init_params(config, key)
  lm = Lm(jax.eval_shape(init, jax.random.key(0)), config)
  whole = sum(x.size for _, x in leaves(lm))
  held = sum(
    math.prod(where(path).shard_shape(x.shape)) for path, x in leaves(lm)
  )
  assert 1 <= held / (whole / 16) < 1.1


# From files.


@pytest.mark.parametrize("fsdp", [False, True], ids=["", "fsdp"])
def test_weights_are_loaded_onto_their_devices(saved, grouped, fsdp):
  loaded = load_lm(saved, mesh=mesh(2, 4), fsdp=fsdp)
  expected = leaves(place(in_file_layout(grouped), mesh(2, 4), fsdp))
  for (path, x), (_, y) in zip(leaves(loaded), expected, strict=True):
    assert x.sharding == y.sharding, path
    np.testing.assert_array_equal(x, y)


def in_file_layout(lm):
  """Converts the gating weights to Hugging Face's only layout."""
  turn = lambda path, x: (
    x.swapaxes(1, 2) if path[-1].key == "gating_einsum" else x
  )
  params = jax.tree_util.tree_map_with_path(turn, lm.params)
  config = dataclasses.replace(lm.config, transpose_gating=True)
  return lm.replace(params=params, config=config)


def test_without_a_mesh_one_device_holds_all(saved):
  for _, x in leaves(load_lm(saved)):
    assert len(x.devices()) == 1


def test_a_mesh_that_does_not_divide_is_named(saved):
  with pytest.raises(UserError, match=r"model=8 .*_heads=4; use 1 or 2 or 4\."):
    load_lm(saved, mesh=mesh(1, 8))


# Meshes that do not divide a weight.

WORKS = {
  "gemma2-2b": [1, 2, 4],
  "gemma2-9b": [1, 2, 4, 8],
  "gemma2-27b": [1, 2, 4, 8, 16],
  "gemma3-270m": [1, 2, 4],
  "gemma3-1b": [1, 2, 4],
  "gemma3-4b": [1, 2, 4],
  "gemma3-12b": [1, 2, 4, 8],
  "gemma3-27b": [1, 2, 4, 8, 16],
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_divisor_that_the_error_names_works(name):
  config = PUBLISHED[name]()
  for model in range(1, 33):
    large = AbstractMesh((1, model), ("data", "model"))
    if model in WORKS[name]:
      check_divides(config, large)
      continue
    with pytest.raises(UserError) as error:
      check_divides(config, large)
    assert f"use {' or '.join(map(str, WORKS[name]))}." in str(error.value)


def test_a_mesh_with_fsdp_must_divide_the_residual_stream():
  odd = AbstractMesh((5, 1), ("data", "model"))
  check_divides(gemma2_2b(), odd)
  with pytest.raises(UserError, match=r"data=5 .*embed_dim=2304; use 1 or 2"):
    check_divides(gemma2_2b(), odd, fsdp=True)
