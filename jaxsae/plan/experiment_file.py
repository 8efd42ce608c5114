"""Reads the runs of an experiment file, with overrides, and trains nothing."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence

from jaxsae import overrides
from jaxsae.errors import UserError, did_you_mean
from jaxsae.files import expanded
from jaxsae.overrides import Count, Place, PlaceOrEmpty
from jaxsae.runs import experiment_file
from jaxsae.train.config.run import TrainConfig


@dataclasses.dataclass(frozen=True)
class Options:
  """Settings of `jaxsae plan` itself."""

  # The slice, as in v5e:2x4 or v5p:4x4x4: v4, v5e, v5p, v6e or tpu7x, and the
  # number of chips along each axis.
  topology: PlaceOrEmpty = ""
  slices: Count = 1  # number of slices of that shape, joined into one job
  # More slices to compare, as in v5e:4x4,v6e:2x4.
  topologies: tuple[Place, ...] = ()
  only: Place | None = None  # the name of one run, if there are several
  # Number of runs that train at the same time, each on its own slices.
  at_once: Count = 1
  # Searches for the mesh and the rows per microbatch that take the least time.
  search: bool = False
  # Compiles; otherwise temporary memory and collectives are not known.
  compile: bool = True
  json: Place | None = None  # a file to write the same figures to
  prices: Place | None = None  # a file of chip prices instead of jaxsae's own

  def __post_init__(self):
    overrides.check(self)


@dataclasses.dataclass(frozen=True)
class Experiment:
  """An experiment file and its runs.

  Attributes:
    path: path of the file.
    options: settings of the plan.
    configs: name → config of each run, with overrides.
  """

  path: pathlib.Path
  options: Options
  configs: Mapping[str, TrainConfig]


def read(path: str, argv: Sequence[str]) -> Experiment:
  """Reads a file that has `config` or `configs()`, and applies overrides.

  The file's code runs as `runs.experiment_file.read` says.

  Raises:
    UserError: there is no such file, it has neither, or an override is wrong.
  """
  file = pathlib.Path(expanded(path))
  configs, doc = _contents(file)
  parsed = {
    name: overrides.parse_several(
      Options(),
      config,
      argv=argv,
      doc=doc,
      headings=("settings of the plan:", "settings of the run:"),
      usage=f"jaxsae plan {path}",
    )
    for name, config in configs.items()
  }
  options, _ = next(iter(parsed.values()))
  configs = {name: config for name, (_, config) in parsed.items()}
  return Experiment(file, options, _chosen(options.only, configs))


def _contents(
  file: pathlib.Path,
) -> tuple[Mapping[str, TrainConfig], str | None]:
  if not file.is_file():
    raise UserError(
      f"There is no experiment file {file}; give its path, as in"
      " jaxsae plan experiments/gemma2_2b_residual.py --topology=v5e:2x4."
    )
  if file.suffix != ".py":
    raise UserError(
      f"{file} is not an experiment file: its name must end in .py."
    )
  found = experiment_file.read(file)
  if not found.configs:
    raise UserError(
      f"{file} is not an experiment that can be planned: it has neither a"
      " `config` that is a TrainConfig nor a function `configs` that returns"
      " TrainConfigs by name."
    )
  return found.configs, found.doc


def _chosen(
  only: str | None, configs: Mapping[str, TrainConfig]
) -> Mapping[str, TrainConfig]:
  if only is None:
    return configs
  if only not in configs:
    guess = did_you_mean(only, list(configs))
    there_are = f"there are {', '.join(configs)}."
    advice = f"{guess} {there_are}" if guess else there_are
    raise UserError(
      f"--only={only} is not one of the {len(configs)} runs; {advice}"
    )
  return {only: configs[only]}
