"""Grids of autoencoders, such as Gemma Scope's, divided into training runs."""

import dataclasses
import itertools
from collections.abc import Iterable, Sequence

from jaxsae import renamed
from jaxsae.data import DataConfig
from jaxsae.errors import UserError
from jaxsae.lm import Taps
from jaxsae.lm.weights import read_sizes
from jaxsae.runs.flops import run_flops
from jaxsae.train.config.presets import gemma_scope_to
from jaxsae.train.config.run import TrainConfig


@dataclasses.dataclass(frozen=True)
class GridPart:
  """The part of a grid whose layers have the same sites, widths and targets.

  It has one autoencoder for every layer, site, width and target.
  """

  name: str  # also the name of its run
  where: tuple[str, ...]  # sites of each layer, such as ("resid", "mlp")
  layers: Sequence[int]  # in ascending order
  widths: tuple[int, ...]  # numbers of latents
  target_l0: tuple[float, ...]
  tokens: int  # number of tokens to train each autoencoder on


@renamed.accept_argument("rows", "parts")
@dataclasses.dataclass(frozen=True)
class Grid:
  """Autoencoders of one language model, and how they are divided into runs.

  The autoencoders of a run share the language model's forward passes. A run
  has one number of tokens and one list of targets, so each part is at least
  one run. A part with too many parameters for one run is split between
  layers, into as few runs as possible, with nearly equal numbers of layers.
  Each run gets consecutive layers, because its forward pass ends at its last
  site. The sites, widths and targets of a layer stay in one run.

  The default bound suits a slice of 16 v5p chips (95 GB each) or 64 v6e chips
  (32 GB each). Training takes 12 bytes per parameter: its value, its second
  moment and its gradient, in float32. 48 billion parameters take 576 GB: 36 GB
  per v5p chip, 9 GB per v6e chip. The activations of a bucket come on top,
  once, spread over all chips: tokens × site width × 4 bytes per site, or half
  of that in bfloat16. For 262,144 tokens and the 63 sites of half of the 9B
  they take at most 248 GB: 15 GB per v5p chip, 4 GB per v6e chip.
  """

  workdir: str  # contains a folder for each run
  lm: str
  parts: tuple[GridPart, ...]
  fsdp: bool = False  # as in TrainConfig
  most_parameters: int = 48_000_000_000  # of all autoencoders in one run

  def configs(self) -> dict[str, TrainConfig]:
    """Returns the configs of all runs by name.

    Raises:
      UserError: one layer of a part has more parameters than a run may have.
    """
    return {
      name: config for part in self.parts for name, config in self._split(part)
    }

  def _split(self, part: GridPart) -> Iterable[tuple[str, TrainConfig]]:
    """Splits a part into as few runs as the bound allows."""
    configs: list[tuple[str, TrainConfig]] = []
    for count in range(1, len(part.layers) + 1):
      pieces = [
        dataclasses.replace(
          part, name=_name(part, layers, count), layers=layers
        )
        for layers in _nearly_equal(part.layers, count)
      ]
      configs = [(piece.name, self._config(piece)) for piece in pieces]
      if all(self._parameters(c) <= self.most_parameters for _, c in configs):
        return configs
    raise UserError(
      f"One layer of {part.name} has {self._parameters(configs[0][1]):,}"
      f" parameters, more than most_parameters={self.most_parameters:,} allows"
      " in a run; raise it, or give the part fewer sites, widths or targets."
    )

  def _parameters(self, config: TrainConfig) -> int:
    return run_flops(config, read_sizes(self.lm)).parameters

  def _config(self, part: GridPart) -> TrainConfig:
    sites = tuple(
      Taps.parse(f"{where}.{layer}")
      for layer in part.layers
      for where in part.where
    )
    return TrainConfig(
      workdir=f"{self.workdir}/{part.name}",
      lm=self.lm,
      tokens=part.tokens,
      data=DataConfig(source="", context=1024),
      sae=gemma_scope_to(sites, part.widths, part.target_l0),
      fsdp=self.fsdp,
      log_every=10,
    )


def _name(part: GridPart, layers: Sequence[int], count: int) -> str:
  if count == 1:
    return part.name
  if len(layers) == 1:
    return f"{part.name}_{layers[0]}"
  return f"{part.name}_{layers[0]}-{layers[-1]}"


def _nearly_equal(items: Sequence[int], count: int) -> list[Sequence[int]]:
  """Splits a sequence into `count` slices of nearly equal length."""
  ends = [i * len(items) // count for i in range(count + 1)]
  return [items[a:b] for a, b in itertools.pairwise(ends)]
