"""The placement of each stack, and what the log says about it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsae import chips
from jaxsae import mesh as meshes
from jaxsae.errors import UserError
from jaxsae.lm import Site
from jaxsae.mesh import MeshConfig
from jaxsae.train.config.sweep import SweepConfig
from jaxsae.train.group import sites_of_shards
from jaxsae.train.placement import placements
from jaxsae.train.placement.select import (
  bucket_dtype,
  choose_placements,
  log_lines,
  resident_bytes,
)
from jaxsae.train.sources.text import abstract_arguments, read_bucket
from tests.train.placed import GEMMA
from tests.train.placed import config as toy


def asked(config, data=4, model=2):
  mesh = meshes.make(MeshConfig(data, model))
  state, lm, _ = abstract_arguments(config, GEMMA, mesh)
  return config, mesh, state, lm


def chosen(config, mesh, state, lm):
  return choose_placements(
    config.stacks,
    config.schedule,
    mesh,
    state.stacks,
    bucket_dtype(config, lm),
  )


def logged(config, mesh, state, lm):
  choices = chosen(config, mesh, state, lm)
  return list(log_lines(config, mesh, choices, lm))


def test_a_sweep_gets_the_placement_it_asks_for(replace):
  config = toy("by_latent", 4)
  other = SweepConfig(
    sites=(Site("attn", 0),), widths=(64,), placement="by_sae"
  )
  config = replace(config, also=(other,))
  found = chosen(*asked(config))
  assert [one.placement.name for one in found] == ["by_latent", "by_sae"]
  assert [one.indices for one in found] == [(0, 1), (2,)]


def test_auto_takes_the_fastest_placement():
  config, mesh, *rest = asked(toy("auto", 4))
  (found,) = chosen(config, mesh, *rest)
  assert all(found.time.seconds <= other.seconds for other in found.others)
  considered = {found.placement, *(other.placement for other in found.others)}
  assert considered == set(placements.on(mesh))


def test_an_impossible_placement_is_refused(replace):
  config = replace(toy("by_latent", 4), sae__widths=(1001,))
  with pytest.raises(UserError, match=r"by_latent.*8 devices do not divide"):
    chosen(*asked(config))


def memory_of(monkeypatch, size):
  """Gives each device so much memory."""
  cpu = dataclasses.replace(chips.CHIPS["cpu"], hbm_bytes=size)
  monkeypatch.setitem(chips.CHIPS, "cpu", cpu)


def choose(config, mesh, state, lm, resident):
  dtype = bucket_dtype(config, lm)
  return choose_placements(
    config.stacks, config.schedule, mesh, state.stacks, dtype, resident
  )


def test_a_placement_fits_beside_the_language_model_and_the_bucket(monkeypatch):
  given = asked(toy("auto", 4))
  (free,) = choose(*given, 0)
  _, mesh, _, lm = given
  bucket = 64 * 64 // 4 * 2 * 256 * 2  # tokens, sites, numbers, bytes
  here = meshes.on_device(lm.params) + bucket
  assert resident_bytes(given[0], mesh, lm) == here
  memory_of(monkeypatch, free.time.held)
  assert choose(*given, 0)[0].placement == free.placement
  (beside,) = choose(*given, 1)
  assert beside.placement != free.placement
  assert beside.time.held < free.time.held
  refused = next(t for t in beside.others if t.placement == free.placement)
  assert "are taken" in refused.error


def test_a_placement_fits_beside_other_stacks(replace, monkeypatch):
  config = toy("auto", 4)
  other = dataclasses.replace(config.sae, widths=(1024,))
  given = asked(replace(config, also=(other,)))
  first, second = choose(*given, 0)
  # Each fits if nothing else is there.
  memory_of(monkeypatch, max(first.time.held, second.time.held))
  found = choose(*given, 0)
  assert [one.placement for one in found] != [first.placement, second.placement]
  assert found[0].time.kept + found[1].time.held <= chips.of("cpu").hbm_bytes


def test_the_log_has_placement_seconds_and_bucket():
  said = logged(*asked(toy("by_sae", 4)))
  assert said[0] == "predicted with the figures of cpu:"
  assert "8 autoencoders of 2 stacks, resid.0/2048 to mlp.0/2048" in said[1]
  assert "by_sae" in said[1] and "ms an update" in said[1]
  # 2 · 32 rows of 64 tokens, two sites of 256 numbers of two bytes.
  assert said[2] == (
    "bucket: 4.2 MB of activations in bfloat16, 1.0 MB on each device"
  )


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", None])
def test_the_bucket_has_the_dtype_asked_for(replace, dtype):
  config = replace(toy("auto", 4), bucket__dtype=dtype)
  config, mesh, state, lm = asked(config)
  _, _, batch = abstract_arguments(config, GEMMA, mesh)
  bucket = jax.eval_shape(
    lambda lm, batch: read_bucket(config, mesh, lm, batch), lm, batch
  )
  seen, mask = bucket.sites, bucket.mask
  assert {x.dtype for x in seen.values()} == {jnp.dtype(dtype or "bfloat16")}
  assert mask.dtype == jnp.float32
  size = sum(x.size * x.dtype.itemsize for x in seen.values())
  assert f"bucket: {size / 1e6:.1f} MB" in logged(config, mesh, state, lm)[2]


def test_a_device_needs_each_site_of_its_members_once():
  a, b, c = (Site("resid", layer) for layer in range(3))
  sites, seats = sites_of_shards([a, a, a, a, b, b, b, c], 2)
  assert sites.tolist() == [[a, a], [b, c]]
  np.testing.assert_array_equal(seats, [[0, 0, 0, 0], [0, 0, 0, 1]])
  sites, seats = sites_of_shards([a, a, b, b], 2)
  assert sites.tolist() == [[a], [b]]
