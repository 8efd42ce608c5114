"""Frontiers are compared at the same L0."""

import collections
import math

import pytest

from experiments.comparison import frontier

Found = collections.namedtuple("Found", "l0 fvu")


def seed(*pairs):
  return [Found(*pair) for pair in pairs]


def test_the_shared_l0s_are_reached_by_all_seeds_of_all_sides():
  side = [seed((10.0, 1), (40.0, 1)), seed((9.0, 1), (50.0, 1))]
  other = [seed((64.0, 1), (4.0, 1), (16.0, 1))]
  found = frontier.shared_l0s([side, other])
  assert found == (10.0, pytest.approx(20.0), 40.0)


@pytest.mark.parametrize("ends", [(50.0, 60.0), (40.0, 60.0)])
def test_frontiers_that_do_not_overlap_share_no_l0(ends):
  other = [seed(*((l0, 1) for l0 in ends))]
  assert frontier.shared_l0s([[seed((10.0, 1), (40.0, 1))], other]) == ()


def test_a_frontier_is_interpolated_whatever_the_order_of_its_points():
  seeds = [seed((40.0, 0.1), (10.0, 0.4), (20.0, 0.2)), seed((20.0, 0.3))]
  read = lambda l0: frontier.at(l0, seeds, "fvu")
  assert read(20.0) == [pytest.approx(0.2), pytest.approx(0.3)]
  assert read(math.sqrt(200))[0] == pytest.approx(0.3)
  assert read(math.sqrt(800))[0] == pytest.approx(0.15)
