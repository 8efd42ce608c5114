"""The cost model predicts the right order of placements."""

import dataclasses

import jax
import pytest
from jax.sharding import AbstractMesh

from jaxsae import chips
from jaxsae import mesh as meshes
from jaxsae.train.placement import placements
from jaxsae.train.placement.cost_model import Work, update_time, update_times

V5P = chips.of("TPU v5p")
SWEEP = Work(  # 64 of the 2B's, on 64 chips
  sites=16,
  members=4,
  d_in=2304,
  d=2304,
  width=16_384,
  tokens=4096,
  updates=256,
  token_bytes=2 * 2304,
)


def mesh(data, model):
  return AbstractMesh((data, model), ("data", "model"))


def fastest(work, data=16, model=4, chip=V5P):
  return update_times(work, mesh(data, model), chip)[0].placement


def test_a_sweep_of_as_many_as_devices_is_trained_by_sae():
  assert fastest(SWEEP) == placements.BY_SAE


def test_one_wide_autoencoder_is_trained_by_latent():
  one = dataclasses.replace(SWEEP, sites=1, members=1, width=2**20)
  assert fastest(one) == placements.BY_LATENT


def test_few_autoencoders_divide_the_data_axis():
  few = dataclasses.replace(SWEEP, sites=1)
  found = update_times(few, mesh(64, 1), V5P)
  assert found[0].placement == placements.divided(4)
  whole = update_time(few, placements.BY_SAE_AND_LATENT, mesh(64, 1), V5P)
  assert found[0].flops == whole.flops
  assert found[0].sent < whole.sent / 3


def test_a_divided_axis_is_of_the_same_devices_in_the_same_order():
  place = placements.divided(2)
  found = place.mesh(meshes.make(meshes.MeshConfig(4, 2)))
  assert dict(found.shape) == {"data_latents": 2, "data_saes": 2, "model": 2}
  assert found.devices.ravel().tolist() == jax.devices()
  assert place.mesh(mesh(4, 2)).shape == found.shape


def test_rows_stay_if_there_are_many_tokens_and_few_latents():
  tiny = dataclasses.replace(
    SWEEP, sites=1, members=1, width=256, d_in=64, d=64, tokens=2**20
  )
  assert fastest(tiny) == placements.BY_LATENT_AND_ROW


def test_all_placements_are_equal_on_one_device():
  found = update_times(SWEEP, mesh(1, 1), V5P)
  assert {one.sent for one in found} == {0}
  assert len({one.seconds for one in found}) == 1
  assert found[0].placement == placements.BY_LATENT_AND_ROW


@pytest.mark.parametrize("place", placements.on(mesh(16, 4)))
def test_the_flops_of_all_devices_add_up(place):
  """64 autoencoders occupy all of 64 devices, in every placement."""
  found = update_time(SWEEP, place, mesh(16, 4), V5P)
  every = 64 * 4096 * 16_384 * 2304 * 10
  assert found.flops * 64 == pytest.approx(every)


def test_a_skip_is_computed_by_every_device_that_has_the_tokens():
  skips = dataclasses.replace(SWEEP, skip=True)
  for place, times in (
    (placements.BY_SAE, 64),
    (placements.BY_LATENT, 64 * 64),
  ):
    plain, found = (
      update_time(work, place, mesh(16, 4), V5P).flops
      for work in (SWEEP, skips)
    )
    assert 64 * (found - plain) == times * 4096 * 4 * 2304 * 2304


def test_a_copy_takes_as_many_flops_as_an_autoencoder():
  few = dataclasses.replace(SWEEP, sites=13, members=5)  # 65: two for each
  whole = update_time(SWEEP, placements.BY_SAE, mesh(16, 4), V5P)
  found = update_time(few, placements.BY_SAE, mesh(16, 4), V5P)
  assert found.flops == 2 * whole.flops


def test_a_device_reads_a_site_once_for_all_members():
  same = dataclasses.replace(SWEEP, sites=16, members=8)
  apart = dataclasses.replace(SWEEP, sites=128, members=1)
  found = [
    update_time(work, placements.BY_SAE, mesh(64, 1), V5P)
    for work in (same, apart)
  ]
  rows = [one.sent - one.moved / SWEEP.updates for one in found]
  assert rows[1] == pytest.approx(2 * rows[0])


def test_the_move_is_divided_among_the_updates_of_a_bucket():
  short = dataclasses.replace(SWEEP, updates=1)
  long, short = (
    update_time(work, placements.BY_SAE, mesh(16, 4), V5P)
    for work in (SWEEP, short)
  )
  assert short.moved == long.moved
  assert short.sent - long.sent == pytest.approx(long.moved * 255 / 256)


def test_a_placement_that_does_not_fit_is_refused_with_its_bytes():
  wide = dataclasses.replace(SWEEP, sites=1, members=1, width=2**21)
  small = chips.of("TPU v5e")
  found = update_time(wide, placements.BY_SAE, mesh(16, 4), small)
  # The weights, their second moments and their gradients: 36 GiB each.
  assert "GiB of a device's 16" in found.error
  assert found.held > 3 * 36 * 2**30
  best = update_times(wide, mesh(16, 4), small)[0]
  assert best.placement == placements.BY_LATENT and not best.error


def test_latents_that_devices_do_not_divide_are_not_sharded():
  odd = dataclasses.replace(SWEEP, width=1000)
  found = update_time(odd, placements.BY_LATENT, mesh(16, 4), V5P)
  assert found.error == "64 devices do not divide 1000 latents"
