"""Slices that exist are parsed; others are refused."""

import pytest

from jaxsae.errors import UserError
from jaxsae.plan.topology import KINDS, parse


@pytest.mark.parametrize(
  ("topology", "chips", "devices"),
  [
    ("v4:2x2x1", 4, 4),
    ("v4:8x8x16", 1024, 1024),
    ("v5e:1x1", 1, 1),
    ("v5e:16x16", 256, 256),
    ("v5p:4x4x4", 64, 64),
    ("v5p:8x16x16", 2048, 2048),
    ("v6e:2x4", 8, 8),
    ("tpu7x:4x4x4", 64, 128),
  ],
)
def test_slices_from_one_chip_to_a_pod(topology, chips, devices):
  slices = parse(topology)
  assert (slices.chips, slices.devices) == (chips, devices)
  assert slices.topology == str(slices) == topology


def test_several_slices_are_counted_together():
  slices = parse("v5e:2x4", 3)
  assert (slices.chips, slices.devices, str(slices)) == (24, 24, "3 x v5e:2x4")


@pytest.mark.parametrize(
  ("topology", "names"),
  [
    ("v9:2x2", list(KINDS)),
    ("v5p", ["2x2x1", "4x4x4"]),
    ("v5p:3x5x7", ["v5p:3x5x7", "2x2x1", "by fours", "16x16x24"]),
    ("v5p:4x4x2", ["2x2x4"]),
    ("v5p:0x4x4", ["2x2x1"]),
    ("v5e:4x2", ["2x4"]),
    ("v5e:2x4x4", ["2x4"]),
    ("v6e:32x32", ["16x16"]),
    ("v5e:-2x4", ["2x4"]),
    ("v4:12x16x20", ["12x16x16"]),
  ],
)
def test_the_error_about_a_missing_slice_lists_those_that_exist(
  topology, names
):
  with pytest.raises(UserError) as error:
    parse(topology)
  for name in names:
    assert name in str(error.value)


def test_zero_slices_are_refused():
  with pytest.raises(UserError, match="--slices=0"):
    parse("v5e:2x4", 0)
