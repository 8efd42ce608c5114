"""The folder of a run: what it holds, and whose it is.

config.json  the resolved configuration     policy.json  how text was cut up
lease.json  who trains it now               corpus.json  what its text was
checkpoints/  metrics.jsonl  tensorboard/  eval/STEP.json  export/  report/
damaged/  checkpoints that could not be used
not_finite.json  what stopped the run, where something was not finite
"""

import dataclasses
import json
import re

from etils import epath

from jaxsae import overrides
from jaxsae.data import TokenPolicy, check_policy
from jaxsae.errors import UserError
from jaxsae.files import remove_leftovers, unfinished, whole_file
from jaxsae.train.config.run import TrainConfig

# What may differ between a run and its continuation: none changes the result.
FREE = (
  "workdir",
  "mesh.",
  "fsdp",
  "eval.",
  "data.cache",
  "dead_after",
  # But for the order of sums it changes only what happens when something
  # broke, and a run that was stopped by that must be able to go on without it.
  "not_finite",
  "check_replicas_every",
  "log_every",
  "checkpoint_every",
  "keep_checkpoints",
  "keep_every",
)


# What a start that was killed leaves: all but config.json, which is written
# last and so says that the folder is a run's.
_BEGUN = re.compile(r"lease\.json|\.(config|policy|lease)\.json\.\d+\.partial")

# What is written by commands that read the run, and may do so at any time.
_OF_OTHERS = ("eval", "export", "report")


def claim(config: TrainConfig, policy: TokenPolicy) -> epath.Path:
  """Makes the folder, or makes sure that it belongs to this configuration.

  A start that is killed anywhere in this is begun again by the next. The files
  that a killed process was writing are removed, so the caller must own the
  run.

  Raises:
    UserError: names the settings that differ, or says why it can not be made.
  """
  path = epath.Path(config.workdir)
  record = path / "config.json"
  try:
    path.mkdir(parents=True, exist_ok=True)
    if record.exists():
      _check_same(read_config(path), config, record)
      check_policy_of(path, policy)
    elif not all(_is_begun(file) for file in path.iterdir()):
      raise UserError(
        f"{path} is not empty and holds no run; give --workdir=DIR a new one."
      )
    else:
      write_json(path / "policy.json", dataclasses.asdict(policy))
      write_json(record, overrides.to_json(config))
    _sweep(path)
  except OSError as error:
    raise UserError(
      f"{path} can not be written ({error.strerror}); give --workdir=DIR"
      " another."
    ) from error
  return path


def is_claimed(path: epath.Path) -> bool:
  """Whether the folder is a run's."""
  return (path / "config.json").exists()


def is_complete(config: TrainConfig) -> bool:
  """Whether the run is over: trained to its end and judged.

  Raises:
    UserError: the folder belongs to another configuration.
  """
  path = epath.Path(config.workdir)
  record = path / "config.json"
  if not record.exists():
    return False
  _check_same(read_config(path), config, record)
  return (path / "eval" / f"{config.steps}.json").exists()


def read_config(path: epath.Path) -> TrainConfig:
  """The configuration that the run in this folder was started with."""
  record = path / "config.json"
  if not record.exists():
    raise UserError(f"{path} is not a run: it has no config.json.")
  try:
    data = json.loads(record.read_text())
  except ValueError as error:
    raise UserError(f"{record} is not JSON: {error}.") from error
  return overrides.from_json(TrainConfig, data, str(record))


def check_policy_of(path: epath.Path, policy: TokenPolicy) -> None:
  """Raises UserError unless the run's text was cut up in the same way."""
  record = path / "policy.json"
  try:
    saved = dict(json.loads(record.read_text()))
  except (OSError, ValueError, TypeError) as error:
    raise UserError(f"{record} can not be read: {error}.") from error
  check_policy(saved, policy)


def write_json(path: epath.Path, data) -> None:
  """Writes the file whole, or leaves what was there."""
  with whole_file(path) as partial:
    partial.write_text(json.dumps(data, indent=2) + "\n")


def _is_begun(file: epath.Path) -> bool:
  """Whether a file can be the rest of a start that was killed."""
  if file.name != "policy.json":
    return bool(_BEGUN.fullmatch(file.name))
  try:
    keys = set(json.loads(file.read_text()))
  except (ValueError, TypeError):
    return False
  return keys == {field.name for field in dataclasses.fields(TokenPolicy)}


def _sweep(path: epath.Path) -> None:
  """Removes what processes that were killed left of files, all over the run."""
  for partial in list(unfinished(path)):
    partial.unlink(missing_ok=True)
  for name in _OF_OTHERS:
    remove_leftovers(path / name)


def _check_same(saved: TrainConfig, now: TrainConfig, record) -> None:
  different = [
    f"{name} was {_text(was)} and is {_text(given)}"
    for name, was, given in overrides.differences(saved, now)
    if not name.startswith(FREE)
  ]
  if different:
    raise UserError(
      f"{record} belongs to another configuration: {'; '.join(different)}."
      " Give --workdir=DIR a new one, or the settings it was started with. Only"
      f" these may change: {_free()}."
    )


def _free() -> str:
  return ", ".join(name + "*" * name.endswith(".") for name in FREE)


def _text(value) -> str:
  if isinstance(value, tuple):
    return ",".join(map(_text, value)) or "empty"
  return f"{value:g}" if isinstance(value, float) else str(value)
