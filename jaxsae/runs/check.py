"""Finds out what a run's settings name that this machine cannot read.

  python -m jaxsae.runs.check experiments/NAME.py --workdir=… --lm=…

prints the problems as a JSON list of sentences, `[]` if there is none. It reads
the experiment and its flags as the run will, but no weights, and uses no
device. `launch` calls it on every host before it starts a run there. Where a
bucket does not answer, it ends with the status of a run that cannot reach it.
"""

import dataclasses
import json
import operator
import os
import pathlib
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence

from etils import epath

from jaxsae import overrides
from jaxsae.data import list_source
from jaxsae.errors import RunError, UserError, exit_on_user_error
from jaxsae.files import check_writable, expanded, given_path
from jaxsae.lm.formats import official
from jaxsae.lm.weights import SHIPPED, read_sizes
from jaxsae.runs import experiment_file
from jaxsae.runs.main import RunSelection
from jaxsae.train.config.run import TrainConfig


@exit_on_user_error()
def main(argv: Sequence[str]) -> None:
  """Prints what this machine lacks for an experiment with these flags."""
  file, *flags = argv
  print(json.dumps(problems(_configs(file, flags))))


def problems(configs: Iterable[TrainConfig]) -> list[str]:
  """Returns a sentence for each place that cannot be used from here."""
  places = {
    (name, operator.attrgetter(name)(config)): check
    for config in configs
    for name, check in _CHECKS.items()
  }
  return [
    f"--{name}={place}: {trouble}"
    for (name, place), check in places.items()
    if place is not None and (trouble := _trouble(check, place))
  ]


def _trouble(check: Callable[[str], None], place: str) -> str | None:
  """Returns why a place cannot be used; None if it can."""
  try:
    return check(place)
  except UserError as error:
    return str(error).rstrip(".")
  except RunError:  # a bucket does not answer, which says nothing of the place
    raise
  # Each storage library has errors of its own, from the network to the
  # permissions; whichever it is, the run would meet it too.
  except Exception as error:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _check_weights(name: str) -> None:
  if official.is_name(name):
    path, _ = official.locate(name)
    _check_there(str(path))
  elif name not in SHIPPED:
    _check_there(name)
    read_sizes(name)


def _check_text(source: str) -> None:
  for file in list_source(source).files:
    _check_readable(file.path)


def _check_there(path: str) -> None:
  """Raises UserError unless the folder exists and its files are readable."""
  folder = given_path(path)
  if not folder.exists():
    raise UserError("it does not exist")
  if "://" not in path and folder.is_dir():
    for file in filter(epath.Path.is_file, folder.iterdir()):
      _check_readable(os.fspath(file))


def _check_readable(path: str) -> None:
  if not os.access(path, os.R_OK):
    raise UserError(f"{path} is not readable")


def _check_writable(path: str) -> None:
  """Raises unless a folder is there, or can be made; a bucket must answer."""
  if "://" in path:
    check_writable(path, "give another place, or this machine access")
    return
  folder = pathlib.Path(expanded(path)).absolute()
  there = next(x for x in (folder, *folder.parents) if x.exists())
  if not os.access(there, os.W_OK | os.X_OK):
    raise UserError(f"{there} is not writable")


_CHECKS: dict[str, Callable[[str], None]] = {
  "lm": _check_weights,
  "data.source": _check_text,
  "data.cache": _check_writable,
  "workdir": _check_writable,
  "start_from": _check_there,
}


def _configs(file: str, flags: Sequence[str]) -> Iterator[TrainConfig]:
  """Yields the configs of an experiment; none if it has a form of its own.

  Raises:
    UserError: a flag is wrong.
  """
  found = experiment_file.read(pathlib.Path(expanded(file)))
  for config in found.configs.values():
    if found.is_single:
      yield overrides.parse(config, argv=flags)
    else:
      given, one = overrides.parse_several(RunSelection(), config, argv=flags)
      yield dataclasses.replace(one, workdir=given.workdir)


if __name__ == "__main__":
  main(sys.argv[1:])
