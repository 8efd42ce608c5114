"""The runs of a grid have all its autoencoders once, within the bound."""

import dataclasses

import pytest

from jaxsae.errors import UserError
from jaxsae.lm import Taps
from jaxsae.lm.weights import read_sizes
from jaxsae.runs import Grid, GridPart
from jaxsae.runs.flops import run_flops

PART = GridPart(
  name="wide",
  where=("resid", "attn"),
  layers=(2, 3, 5, 7, 11),
  widths=(1024, 4096),
  target_l0=(8, 16, 32),
  tokens=10**9,
)
GRID = Grid(workdir="runs/grid", lm="gemma2-2b-pt", parts=(PART,))


def parameters(config):
  return run_flops(config, read_sizes(config.lm)).parameters


def split(most_parameters):
  return dataclasses.replace(GRID, most_parameters=most_parameters).configs()


def test_a_part_that_fits_is_one_run():
  (name, config), *others = GRID.configs().items()
  assert name == "wide" and not others
  assert config.workdir == "runs/grid/wide"
  assert config.lm == "gemma2-2b-pt" and config.tokens == 10**9
  assert set(config.sae.sites) == {
    Taps.parse(f"{where}.{layer}")
    for where in PART.where
    for layer in PART.layers
  }
  assert config.sae.widths == (1024, 4096)
  assert config.sae.target_l0 == (8, 16, 32)


@pytest.mark.parametrize("share", [1.0, 0.7, 0.5, 0.4, 0.3, 0.2])
def test_a_part_that_does_not_fit_is_split_between_layers(share):
  whole = parameters(GRID.configs()["wide"])
  most = int(whole * share)
  configs = list(split(most).values())
  layers = [s.reads[0].layer for config in configs for s in config.sae.sites]
  assert layers == sorted(2 * PART.layers)  # in order, each layer in one run
  assert all(parameters(config) <= most for config in configs)
  assert sum(map(parameters, configs)) == whole
  # Fewer runs would not do, even if layers could be divided evenly.
  fewest = next(n for n in range(1, 6) if -(-5 // n) * whole <= 5 * most)
  assert len(configs) == fewest


def test_pieces_are_named_by_their_layers():
  whole = parameters(GRID.configs()["wide"])
  assert list(split(whole * 3 // 5)) == ["wide_2-3", "wide_5-11"]
  assert list(split(whole // 5)) == [f"wide_{i}" for i in PART.layers]
  assert split(whole // 5)["wide_7"].workdir == "runs/grid/wide_7"


def test_a_layer_that_is_too_large_for_a_run_is_an_error():
  whole = parameters(GRID.configs()["wide"])
  with pytest.raises(UserError, match=f"wide has {whole // 5:,} parameters"):
    split(whole // 5 - 1)
