"""Grids of autoencoders, as Gemma Scope published them, cut into runs."""

import dataclasses
import itertools
from collections.abc import Iterable, Sequence

from jaxsae.data import DataConfig
from jaxsae.errors import UserError
from jaxsae.lm import Site
from jaxsae.lm.weights import read_sizes
from jaxsae.runs.flops import run_flops
from jaxsae.train.config.presets import gemma_scope_to
from jaxsae.train.config.run import TrainConfig


@dataclasses.dataclass(frozen=True)
class Row:
  """Some layers of a grid that are treated alike.

  There is one autoencoder for every layer, site, width and target.
  """

  name: str  # of its run
  where: tuple[str, ...]  # the sites of each layer, as in ("resid", "mlp")
  layers: Sequence[int]  # ascending
  widths: tuple[int, ...]  # latents
  target_l0: tuple[float, ...]
  tokens: int  # that each autoencoder is trained on


@dataclasses.dataclass(frozen=True)
class Grid:
  """The rows of one language model, and how they become runs.

  What is in one run shares the forward passes of the language model. A run has
  one list of tokens and of targets, so each row is a run of its own. A row
  with more parameters than one run may have is cut between layers, into as few
  runs as will do, of nearly as many layers each: neighbours stay together,
  because the forward pass ends at the last site of a run. The sites, widths
  and targets of a layer are never parted.

  The bound is for a slice like 16 v5p chips (95 GB each) or 64 v6e chips (32
  GB each). In training a parameter takes 12 bytes: it, its second moment and
  its gradient, in float32. 48 billion of them are 576 GB: 36 GB a chip of the
  former, 9 GB of the latter. The activations of a bucket come on top, tokens ×
  site width × 4 bytes a site, half of that in bfloat16: at 262,144 tokens and
  the 63 sites of half of the 9B at most 248 GB, 15 or 4 GB a chip.
  """

  workdir: str  # of all its runs; each has a folder in it
  lm: str
  rows: tuple[Row, ...]
  fsdp: bool = False  # as in TrainConfig
  most_parameters: int = 48_000_000_000  # of the autoencoders of one run

  def configs(self) -> dict[str, TrainConfig]:
    """Its runs by name.

    Raises:
      UserError: a single layer of a row is more than one run may have.
    """
    return {
      name: config for row in self.rows for name, config in self._cut(row)
    }

  def _cut(self, row: Row) -> Iterable[tuple[str, TrainConfig]]:
    """The row in as few runs as the bound allows."""
    for count in range(1, len(row.layers) + 1):
      pieces = [
        dataclasses.replace(row, name=_name(row, layers, count), layers=layers)
        for layers in _parts(row.layers, count)
      ]
      configs = [(piece.name, self._config(piece)) for piece in pieces]
      if all(self._parameters(c) <= self.most_parameters for _, c in configs):
        return configs
    raise UserError(
      f"A layer of {row.name} has {self._parameters(configs[0][1]):,}"
      f" parameters, and most_parameters={self.most_parameters:,} a run; raise"
      " it, or give the row fewer sites, widths or targets."
    )

  def _parameters(self, config: TrainConfig) -> int:
    return run_flops(config, read_sizes(self.lm)).parameters

  def _config(self, row: Row) -> TrainConfig:
    sites = [Site(where, layer) for layer in row.layers for where in row.where]
    return TrainConfig(
      workdir=f"{self.workdir}/{row.name}",
      lm=self.lm,
      tokens=row.tokens,
      data=DataConfig(source="", context=1024),
      sae=gemma_scope_to(sites, row.widths, row.target_l0),
      fsdp=self.fsdp,
      log_every=10,
    )


def _name(row: Row, layers: Sequence[int], count: int) -> str:
  if count == 1:
    return row.name
  if len(layers) == 1:
    return f"{row.name}_{layers[0]}"
  return f"{row.name}_{layers[0]}-{layers[-1]}"


def _parts(items: Sequence[int], count: int) -> list[Sequence[int]]:
  """Cuts a sequence into parts of nearly equal length."""
  ends = [i * len(items) // count for i in range(count + 1)]
  return [items[a:b] for a, b in itertools.pairwise(ends)]
