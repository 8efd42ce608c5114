"""What a checkpoint says of itself, so that damage to it shows.

Orbax keeps no checksum of what arrays hold, casts them to the type that is
asked for, and reads a text with a flipped bit as it is.
"""

import hashlib
import importlib.metadata
import json
from collections.abc import Iterable

import jax

from jaxsae.errors import first_few
from jaxsae.train.checkpoint.corruption import Damaged
from jaxsae.train.checkpoint.fingerprint import fingerprints
from jaxsae.train.state import TrainState

PACKAGES = ("jaxsae", "jax", "orbax-checkpoint", "grain")


def write(state: TrainState, data: dict) -> dict:
  """The record of a checkpoint, as JSON.

  Args:
    state: what is saved.
    data: the data position, as JSON.
  """
  types, prints = _types(state), fingerprints(state)
  content = {
    "step": int(state.step),
    "data": data,
    "arrays": {path: [types[path], prints[path]] for path in types},
    "versions": {name: _version(name) for name in PACKAGES},
  }
  return {"content": content, "sha256": _digest(content)}


def read(record, step: int) -> dict:
  """What the record says, if it is whole and of this step.

  Raises:
    Damaged: it is not.
  """
  if not isinstance(record, dict) or record.keys() != {"content", "sha256"}:
    raise Damaged("it has no record of what was saved")
  content = record["content"]
  if _digest(content) != record["sha256"]:
    raise Damaged("its record is not what was written")
  if content["step"] != step:
    raise Damaged(f"it is of step {content['step']}")
  return content


def check_types(content: dict, like: TrainState) -> None:
  """Raises Damaged unless the arrays saved are those of a state, by shape."""
  saved = {path: kind for path, (kind, _) in content["arrays"].items()}
  asked = _types(like)
  if missing := asked.keys() - saved.keys():
    raise Damaged(f"it has no {_some(missing)}, and this run has")
  if foreign := saved.keys() - asked.keys():
    raise Damaged(f"it has {_some(foreign)}, and this run has not")
  for path, kind in saved.items():
    if kind != asked[path]:
      raise Damaged(f"its {path} is {kind}, and this run's {asked[path]}")


def check_values(content: dict, state: TrainState) -> None:
  """Raises Damaged unless a state holds, bit for bit, what was saved."""
  prints = fingerprints(state)
  changed = [
    p for p, (_, saved) in content["arrays"].items() if prints[p] != saved
  ]
  if changed:
    raise Damaged(f"its {_some(changed)} is not what was saved")


def _types(tree) -> dict[str, str]:
  """The path of every array → such as `float32[2,64]`."""
  paths, _ = jax.tree_util.tree_flatten_with_path(tree)
  return {
    jax.tree_util.keystr(path): f"{x.dtype}[{','.join(map(str, x.shape))}]"
    for path, x in paths
  }


def _version(package: str) -> str:
  try:
    return importlib.metadata.version(package)
  except importlib.metadata.PackageNotFoundError:
    return "not installed"  # such as jaxsae, run from its sources


def _digest(content) -> str:
  text = json.dumps(content, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()


def _some(paths: Iterable[str]) -> str:
  return first_few(sorted(paths))
