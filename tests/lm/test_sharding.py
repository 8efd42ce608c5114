"""The weights lie where the mesh says, and the numbers stay."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsae import mesh as meshes
from jaxsae.errors import UserError
from jaxsae.lm import (
  Site,
  capture,
  gemma2_2b,
  gemma2_9b,
  gemma2_27b,
  load_lm,
  save_lm,
)
from jaxsae.lm.sharding import check_divides, spec

# Which axis of each parameter is divided over `model`.
DIVIDED = {
  "input_embedding": 0,  # [V, D]
  "q_einsum": 0,  # [N, D, H]
  "kv_einsum": 1,  # [2, K, D, H]
  "qkv_einsum": 1,  # [3, N, D, H]
  "attn_vec_einsum": 0,  # [N, H, D]
  "gating_einsum": 1,  # [2, F, D]
  "linear": 0,  # [F, D]
}


def mesh(data, model):
  return meshes.make(meshes.MeshConfig(data, model))


@pytest.fixture(scope="module")
def directory(lm, tmp_path_factory):
  path = tmp_path_factory.mktemp("sharded") / "lm"
  save_lm(lm, path, dtype=jnp.float32)
  return path


@pytest.mark.parametrize("data, model", [(8, 1), (4, 2), (2, 4)])
def test_every_mesh_gives_the_same(directory, lm, tokens, data, model):
  sharded = load_lm(directory, mesh=mesh(data, model))
  where = meshes.shard(mesh(data, model), "data", None)
  rows = jnp.tile(tokens, (4, 1))
  found = both(sharded, jax.device_put(rows, where))
  for ours, alone in zip(found, both(lm, rows), strict=True):
    np.testing.assert_allclose(ours, alone, atol=1e-5)


@jax.jit
def both(lm, tokens):
  """The logits, and the heads of the second layer."""
  site = Site("attn", 1)
  return lm.logits(tokens), capture(lm, tokens, site)[site]


@pytest.mark.parametrize("data, model", [(8, 1), (4, 2), (2, 4)])
def test_every_device_holds_its_part_alone(directory, data, model):
  params = load_lm(directory, mesh=mesh(data, model)).params
  for path, x in jax.tree_util.tree_leaves_with_path(params):
    names = [key.key for key in path]
    expected = list(x.shape)
    axis = next((a for name, a in DIVIDED.items() if name in names), None)
    if axis is not None:
      expected[axis] //= model
    shapes = [shard.data.shape for shard in x.addressable_shards]
    assert shapes == [tuple(expected)] * 8, names
    assert (axis is None) == (names[-1] == "scale")  # all but the norms


def test_a_matrix_is_whole_across_the_model_axis(directory, lm):
  params = load_lm(directory, mesh=mesh(2, 4)).params
  table = params["embedder"]["input_embedding"]
  parts = {s.index[0].start or 0: s.data for s in table.addressable_shards}
  together = np.concatenate([parts[start] for start in sorted(parts)])
  np.testing.assert_array_equal(
    together, lm.params["embedder"]["input_embedding"]
  )


def test_without_a_mesh_one_device_holds_all(directory):
  for x in jax.tree.leaves(load_lm(directory).params):
    assert len(x.devices()) == 1


def test_a_model_axis_that_does_not_divide_is_named(directory):
  with pytest.raises(UserError, match=r"model=8 .*=4; use 1 or 2 or 4\."):
    load_lm(directory, mesh=mesh(1, 8))


@pytest.mark.parametrize(
  "config, works",
  [
    (gemma2_2b, [1, 2, 4]),
    (gemma2_9b, [1, 2, 4, 8]),
    (gemma2_27b, [1, 2, 4, 8, 16]),
  ],
)
def test_the_divisors_that_are_named_are_those_that_work(config, works):
  for model in range(1, 33):
    if model in works:
      check_divides(config(), model)
      continue
    with pytest.raises(UserError) as error:
      check_divides(config(), model)
    assert f"use {' or '.join(map(str, works))}." in str(error.value)


def test_the_official_layout_of_the_2b_is_divided_too():
  path = ("layer_0", "mlp", "gating_einsum")  # [2, D, F]
  assert tuple(spec(path, gemma2_2b())) == (None, None, "model")
