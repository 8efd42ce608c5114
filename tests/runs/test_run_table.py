"""The table of runs is complete, short and aligned."""

import pytest
import rich.console

from jaxsae.lm import Site
from jaxsae.runs.flops import RunFlops
from jaxsae.runs.run_table import table
from jaxsae.train.config.run import SweepConfig, TrainConfig


@pytest.fixture
def printed(capsys):
  """Prints the table of runs with these sites at a width; returns its lines."""

  def show(width, widths=(16_384,), **sites):
    configs = {
      name: TrainConfig(
        tokens=4_000_000_000,
        sae=SweepConfig(
          sites=tuple(map(Site.parse, x.split(","))), widths=widths
        ),
      )
      for name, x in sites.items()
    }
    flops = RunFlops(5, 377_000_000, 2 * 10**19, 3 * 10**17)
    made = table(configs, dict.fromkeys(configs, flops), width)
    rich.console.Console(width=width).print(made)
    return [line.rstrip() for line in capsys.readouterr().out.splitlines()]

  return show


def test_the_table_has_a_line_per_run_and_a_total(printed):
  lines = printed(80, a="resid.3", b="attn.0")
  rows = [line.split() for line in lines]
  figures = ["377.0M", "2.00e19", "3.00e17"]
  assert rows[3] == ["a", "resid", "3", "16k", "5", "4.0B", *figures]
  assert rows[4] == ["b", "attn", "0", "16k", "5", "4.0B", *figures]
  assert rows[6] == ["2", "in", "all", "10", "754.0M", "4.00e19", "6.00e17"]


@pytest.mark.parametrize(
  ("sites", "shown"),
  [
    ("resid.0,resid.1,resid.2,resid.5", "resid 0-2 5"),
    ("resid.0,mlp.0,resid.1,mlp.1", "resid mlp 0-1"),
    ("resid.0,resid.1,mlp.1,mlp.2", "resid 0; resid mlp 1; mlp 2"),
  ],
)
def test_layers_with_the_same_sites_share_a_line(printed, sites, shown):
  assert shown in " ".join(printed(120, a=sites)[3].split())


def test_names_are_whole_in_80_columns(printed):
  sites = ",".join(
    f"{w}.{i}" for w in ("resid", "mlp") for i in range(0, 40, 2)
  )
  widths = tuple(2**n for n in range(14, 21))
  lines = printed(80, widths, a_long_name_40_41=sites)
  assert max(map(len, lines)) <= 80
  assert any(line.startswith("a_long_name_40_41 ") for line in lines)


@pytest.mark.parametrize("width", [20, 40, 60])
def test_a_narrow_terminal_shows_names_and_leaves_out_costs(printed, width):
  lines = printed(width, a_long_name_40_41="resid.0,resid.1", b="mlp.7")
  assert max(map(len, lines)) <= width
  named = [line for line in lines if line.startswith("a_long_name_40_41")]
  assert len(named) == 1
  assert not any("…" in line for line in lines)
  assert ("resid" in named[0]) == (width > 20)
