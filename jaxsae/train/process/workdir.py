"""The folder of a run: what it holds, and which run it belongs to.

config.json  the resolved configuration     policy.json  how text was split
lease.json  who trains it now               corpus.json  what its text was
lm.json  what its language model was
checkpoints/  metrics.jsonl  tensorboard/  eval/STEP.json  export/  report/
metrics/  the lines of metrics.jsonl, while a run trains in an object store
damaged/  corrupted checkpoints
not_finite.json  what was not finite, if that stopped the run
"""

import dataclasses
import json
import re
from collections.abc import Sequence
from typing import Any

from etils import epath

from jaxsae import evals, overrides, pod
from jaxsae.data import DataConfig, TokenPolicy, check_policy
from jaxsae.errors import UserError
from jaxsae.files import (
  entries,
  given_path,
  remove_leftovers,
  unfinished,
  whole_file,
)
from jaxsae.train.config.bucket import SIZES
from jaxsae.train.config.run import EvalConfig, TrainConfig

# What may differ between a run and its continuation: none changes the result.
FREE = (
  "workdir",
  "mesh.",
  "fsdp",
  "eval.",
  # Places. What they hold must be the same: `corpus.json` and `lm.json` have
  # its fingerprints.
  "lm",
  "data.source",
  "data.cache",
  "dead_after",
  "passes",
  # Apart from the order of sums, it changes only what happens when something is
  # not finite, and a run that this stopped must be able to resume.
  "not_finite",
  "check_replicas_every",
  "log_every",
  "checkpoint_every",
  "keep_checkpoints",
  "keep_every",
)


# Settings that older runs do not have in their config.json, with the values
# that describe what those runs did.
ADDED: overrides.Added = {
  EvalConfig: {"control_batches": 4},
  TrainConfig: {"max_norm": None, "passes": None, "precision": "bfloat16"},
  DataConfig: {
    "exclude_tokens": [],
    "held_out_documents": None,
    "text_beside_tables": True,
  },
}

# The files that a killed start leaves. config.json is not one: it is written
# last, so it marks the folder as a run's.
_KILLED_START = re.compile(
  r"lease\.json|\.(config|policy|lease)\.json\.\d+\.partial"
)

# Folders that other commands, which read the run, may write at any time.
_OTHERS_FOLDERS = ("eval", "export", "report")


def claim(config: TrainConfig, policy: TokenPolicy) -> epath.Path:
  """Makes the run's folder, or checks that it has this configuration.

  If a start is killed anywhere in here, the next one starts over. Files that a
  killed process was writing are removed, so the caller must own the run.

  Raises:
    UserError: settings differ, or the folder cannot be made.
  """
  path = given_path(config.workdir)
  record = path / "config.json"
  try:
    path.mkdir(parents=True, exist_ok=True)
    if record.exists():
      _check_same(read_config(path), config, record)
      check_policy_of(path, policy)
    elif not all(_is_from_killed_start(file) for file in entries(path)):
      raise UserError(
        f"{path} is not empty and holds no run; give a new folder with"
        " --workdir=DIR."
      )
    else:
      write_json(path / "policy.json", dataclasses.asdict(policy))
      write_json(record, overrides.to_json(config))
    _remove_leftovers(path)
  except OSError as error:
    raise UserError(
      f"{path} cannot be written ({error.strerror}); give another folder"
      " with --workdir=DIR."
    ) from error
  return path


def update(config: TrainConfig) -> None:
  """Saves settings that may differ, as they are now, in a run that goes on."""
  path = given_path(config.workdir)
  if read_config(path) != config:
    write_json(path / "config.json", overrides.to_json(config))


def is_claimed(path: epath.Path) -> bool:
  """Returns whether the folder is a run's."""
  return (path / "config.json").exists()


def with_saved_bucket(config: TrainConfig) -> TrainConfig:
  """Returns the config with the sizes of the bucket that its run already has.

  Sizes that are given stay, to be compared with the run's. Where there is no
  run yet, nothing changes.
  """
  path = given_path(config.workdir)
  sizes = pod.on_leader(lambda: _saved_sizes(path))
  given = {name: getattr(config.bucket, name) for name in SIZES}
  missing = {k: v for k, v in sizes.items() if given[k] is None}
  bucket = dataclasses.replace(config.bucket, **missing)
  return dataclasses.replace(config, bucket=bucket)


def _saved_sizes(path: epath.Path) -> dict[str, int | None]:
  if not is_claimed(path):
    return {}
  bucket = read_config(path).bucket
  return {name: getattr(bucket, name) for name in SIZES}


def is_complete(config: TrainConfig) -> bool:
  """Returns whether the run is complete: trained to its end and evaluated.

  All autoencoders must be evaluated, and as `config.eval` says.

  Raises:
    UserError: the folder belongs to another configuration.
  """
  path = given_path(config.workdir)
  record = path / "config.json"
  if not record.exists():
    return False
  config = with_saved_bucket(config)
  _check_same(read_config(path), config, record)
  return _is_evaluated(path / "eval" / f"{config.steps}.json", config)


def _is_evaluated(record: epath.Path, config: TrainConfig) -> bool:
  if not record.exists():
    return False
  found = evals.read(record)
  settings = found["about"].get("settings")
  if settings not in (None, overrides.to_json(config.eval)):
    return False  # older runs have no record of them
  names = {result["name"] for result in found["results"]}
  return names >= {name for stack in config.stacks for name in stack.names}


def read_config(path: epath.Path) -> TrainConfig:
  """Reads the configuration that the run in this folder was started with."""
  record = path / "config.json"
  if not record.exists():
    raise UserError(f"{path} is not a run: it has no config.json.")
  try:
    data = json.loads(record.read_text())
  except ValueError as error:
    raise UserError(f"{record} is not JSON: {error}.") from error
  return overrides.from_json(TrainConfig, data, str(record), ADDED)


def check_policy_of(path: epath.Path, policy: TokenPolicy) -> None:
  """Raises UserError unless the run's text was split in the same way."""
  record = path / "policy.json"
  try:
    saved = dict(json.loads(record.read_text()))
  except (OSError, ValueError, TypeError) as error:
    raise UserError(f"{record} cannot be read: {error}.") from error
  check_policy(saved, policy)


def read_record(record: epath.Path, names: Sequence[str]) -> dict[str, Any]:
  """Reads the named entries of a JSON file that the run itself wrote.

  Raises:
    UserError: the file cannot be read, or lacks one of them.
  """
  try:
    saved = dict(json.loads(record.read_text()))
    return {name: saved[name] for name in names}
  except (OSError, ValueError, TypeError, KeyError) as error:
    raise UserError(f"{record} cannot be read: {error!r}.") from error


def write_json(path: epath.Path, data: Any) -> None:
  """Writes the whole file, or leaves the old one."""
  with whole_file(path) as partial:
    partial.write_text(json.dumps(data, indent=2) + "\n")


def _is_from_killed_start(file: epath.Path) -> bool:
  """Returns whether a killed start may have left this file."""
  if file.name != "policy.json":
    return bool(_KILLED_START.fullmatch(file.name))
  try:
    keys = set(json.loads(file.read_text()))
  except (ValueError, TypeError):
    return False
  return keys == {field.name for field in dataclasses.fields(TokenPolicy)}


def _remove_leftovers(path: epath.Path) -> None:
  """Removes partial files that killed processes left anywhere in the run."""
  for partial in list(unfinished(path)):
    partial.unlink(missing_ok=True)
  for name in _OTHERS_FOLDERS:
    remove_leftovers(path / name)


def _check_same(saved: TrainConfig, now: TrainConfig, record) -> None:
  different = [
    f"{name} was {_text(was)} and is {_text(given)}"
    for name, was, given in overrides.differences(_meant(saved), _meant(now))
    if not _is_free(name) and not (name == "tokens" and _may_grow(saved, now))
  ]
  if different:
    raise UserError(
      f"{record} belongs to another configuration: {'; '.join(different)}."
      " Give a new folder with --workdir=DIR, or the settings it was started"
      f" with. Only these may change: {_free()}."
    )


def _meant(config: TrainConfig) -> TrainConfig:
  """Returns the config with numbers where a setting leaves them open."""
  number = lambda sweep: dataclasses.replace(
    sweep, wake_after=sweep.wakes_after
  )
  also = tuple(map(number, config.also))
  return dataclasses.replace(config, sae=number(config.sae), also=also)


def _is_free(name: str) -> bool:
  return any(
    name.startswith(free) if free.endswith(".") else name == free
    for free in FREE
  )


def _may_grow(saved: TrainConfig, now: TrainConfig) -> bool:
  """Returns whether a run may be trained on more tokens than it was to be.

  It may where the rate is constant: then no update before depends on how many
  follow.
  """
  constant = all(not stack.sweep.optim.lr_decay for stack in now.stacks)
  return constant and now.tokens > saved.tokens


def _free() -> str:
  return ", ".join(name + "*" * name.endswith(".") for name in FREE)


def _text(value) -> str:
  if isinstance(value, tuple):
    return ",".join(map(_text, value)) or "empty"
  return f"{value:g}" if isinstance(value, float) else str(value)
