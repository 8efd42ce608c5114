"""The figures of chips are complete and found by device."""

import jax

from jaxsae import chips


def test_a_chip_is_found_by_jaxs_name_for_it():
  assert chips.of(jax.devices()[0].device_kind).name == "cpu"
  assert chips.of("TPU v5p") is chips.of("TPU v5")
  assert chips.of("TPU v5e") is chips.of("TPU v5 lite")
  assert chips.of("TPU v5 lite").flops < chips.of("TPU v5").flops


def test_an_unknown_device_has_a_stand_in_that_says_so():
  chip = chips.of("TPU v99")
  assert chip.name == "TPU v5 lite"


def test_every_figure_is_above_zero():
  for chip in chips.CHIPS.values():
    assert chip.flops > 1e11
    assert chip.hbm_bytes > 2**33
    assert chip.flops > chip.hbm_bandwidth >= chip.link_bandwidth > 0
