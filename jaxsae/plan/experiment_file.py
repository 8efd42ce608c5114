"""An experiment file as a plan sees it: its runs, with overrides, not run."""

import dataclasses
import pathlib
import runpy
import sys
from collections.abc import Mapping, Sequence

from jaxsae import overrides
from jaxsae.errors import UserError, did_you_mean
from jaxsae.train.config.run import TrainConfig


@dataclasses.dataclass(frozen=True)
class Options:
  """What is asked of a plan."""

  # The slice, as in v5e:2x4 or v5p:4x4x4: v4, v5e, v5p, v6e or tpu7x, and
  # chips along each axis.
  topology: str = ""
  slices: int = 1  # of that shape, joined into one job
  # Further slices, as in v5e:4x4,v6e:2x4, to compare the run on each.
  topologies: tuple[str, ...] = ()
  only: str | None = None  # the name of one run of a sweep
  # Of a sweep: so many of its runs are trained at a time, each on slices of
  # its own.
  at_once: int = 1
  # Looks for the mesh and the rows of a microbatch that cost the least.
  search: bool = False
  # Without it nothing is compiled: no memory of temporaries, no collectives.
  compile: bool = True
  json: str | None = None  # a file for the same figures
  prices: str | None = None  # a table of prices instead of jaxsae's


@dataclasses.dataclass(frozen=True)
class Request(TrainConfig, Options):
  """A run's settings, and before them what is asked of its plan."""


@dataclasses.dataclass(frozen=True)
class Experiment:
  """A file and its runs.

  Attributes:
    path: of the file.
    options: what is asked.
    configs: each run, with the overrides, by name.
  """

  path: pathlib.Path
  options: Options
  configs: Mapping[str, TrainConfig]


def read(path: str, argv: Sequence[str]) -> Experiment:
  """Reads a file that has `config` or `configs()`, and the overrides.

  Its code runs as on import, so not what is under `if __name__ ==
  "__main__":`.

  Raises:
    UserError: there is no such file, it has neither, or an override is wrong.
  """
  file = pathlib.Path(path)
  configs, doc = _contents(file)
  sys.argv = [f"-m jaxsae.plan {path}", *argv]  # as --help shows it
  requests = {
    name: overrides.parse(Request(**_fields(config, TrainConfig)), argv, doc)
    for name, config in configs.items()
  }
  options = Options(**_fields(next(iter(requests.values())), Options))
  parsed = {
    name: TrainConfig(**_fields(request, TrainConfig))
    for name, request in requests.items()
  }
  return Experiment(file, options, _chosen(options.only, parsed))


def _contents(file: pathlib.Path) -> tuple[dict[str, TrainConfig], str | None]:
  if not file.is_file():
    raise UserError(
      f"There is no experiment file {file}; give its path, as in"
      " jaxsae plan experiments/gemma2_2b_residual.py --topology=v5e:2x4."
    )
  if file.suffix != ".py":
    raise UserError(f"{file} is no experiment file: its name must end in .py.")
  sys.path.insert(0, str(file.parent))  # as `python FILE` has it
  found = runpy.run_path(str(file), run_name="plan")
  if isinstance(found.get("config"), TrainConfig):
    return {file.stem: found["config"]}, found["__doc__"]
  configs = found["configs"]() if callable(found.get("configs")) else None
  if not configs:
    raise UserError(
      f"{file} is no experiment that can be planned: it has neither a `config`"
      " that is a TrainConfig nor a function `configs` that returns some."
    )
  return dict(configs), found["__doc__"]


def _fields(value, cls) -> dict:
  names = (field.name for field in dataclasses.fields(cls))
  return {name: getattr(value, name) for name in names}


def _chosen(only: str | None, configs):
  if only is None:
    return configs
  if only not in configs:
    guess = did_you_mean(only, list(configs))
    there_are = f"there are {', '.join(configs)}."
    advice = f"{guess} {there_are}" if guess else there_are
    raise UserError(
      f"--only={only} is none of the {len(configs)} runs; {advice}"
    )
  return {only: configs[only]}
