"""The table of slices against figures of Google's documentation."""

import pytest

from jaxsae.plan import topology as plans
from launch.topologies import CHIPS, Topology


@pytest.mark.parametrize(
  "text, accelerator, chips, hosts",
  [
    ("v4:2x2x1", "v4-8", 4, 1),
    ("v4:4x4x4", "v4-128", 64, 16),
    ("v5e:1x1", "v5litepod-1", 1, 1),
    ("v5e:2x4", "v5litepod-8", 8, 1),
    ("v5e:4x4", "v5litepod-16", 16, 4),
    ("v5e:16x16", "v5litepod-256", 256, 64),
    ("v5p:2x2x2", "v5p-16", 8, 2),
    ("v5p:8x16x16", "v5p-4096", 2048, 512),
    ("v6e:2x4", "v6e-8", 8, 1),
    ("v6e:4x8", "v6e-32", 32, 8),
  ],
)
def test_slices_of_cloud_tpu(text, accelerator, chips, hosts):
  slice = Topology.parse(text)
  assert slice.accelerator_type == accelerator
  assert (slice.chips, slice.hosts) == (chips, hosts)


@pytest.mark.parametrize(
  "text, machine, hosts",
  [
    ("v5p:4x4x4", "ct5p-hightpu-4t", 16),
    ("v6e:1x1", "ct6e-standard-1t", 1),
    ("v6e:2x4", "ct6e-standard-8t", 1),
    ("v6e:4x4", "ct6e-standard-4t", 4),
    ("tpu7x:4x4x4", "tpu7x-standard-4t", 16),
  ],
)
def test_machines_of_compute_engine(text, machine, hosts):
  slice = Topology.parse(text)
  assert (slice.machine_type, slice.hosts) == (machine, hosts)


def test_no_two_slices_of_a_chip_have_as_many_chips():
  """Else an accelerator type would not say which shape is meant."""
  for chip in CHIPS.values():
    sizes = [Topology(chip, shape).chips for shape in chip.shapes]
    assert len(set(sizes)) == len(sizes)


def test_slices_are_made_of_whole_hosts():
  for chip in CHIPS.values():
    for shape in chip.shapes:
      slice = Topology(chip, shape)
      assert slice.hosts * slice.chips_per_host == slice.chips


@pytest.mark.parametrize("chip", CHIPS)
def test_what_can_be_had_can_be_planned(chip):
  for shape in CHIPS[chip].shapes:
    slice = Topology(CHIPS[chip], shape)
    assert plans.parse(str(slice)).chips == slice.chips
