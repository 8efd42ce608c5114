"""The manifest of a checkpoint: what was saved, so that corruption shows.

Orbax keeps no checksum of array values, casts them to the requested type, and
reads metadata with a flipped bit as it is.
"""

import hashlib
import json
import re
from collections.abc import Iterable
from typing import Any

import jax

from jaxsae.errors import first_few
from jaxsae.train.checkpoint.corruption import Corrupted
from jaxsae.train.checkpoint.fingerprint import (
  as_text,
  fingerprints,
  sums_of_rows,
  whole,
)
from jaxsae.train.checkpoint.saved import SavedState, trained
from jaxsae.train.process.agreement import version

NONE = "it has no manifest of what was saved"
PACKAGES = ("jaxsae", "jax", "orbax-checkpoint", "grain")


def write(state: SavedState, data: dict) -> dict:
  """Makes the manifest of a checkpoint, as JSON.

  Args:
    state: the state that is saved.
    data: the data position, as JSON.
  """
  types, sums = _types(state), sums_of_rows(state)
  stacks = tuple(map(trained, state.stacks))
  members = state.replace(step=None, key=None, stacks=stacks)
  paths = _types(members)
  content = {
    "step": int(state.step),
    "data": data,
    "arrays": {path: [types[path], whole(sums[path])] for path in types},
    # So that one autoencoder can be read, and checked, without the others.
    "members": {path: [as_text(one) for one in sums[path]] for path in paths},
    "versions": {name: version(name) for name in PACKAGES},
  }
  return {"content": content, "sha256": _digest(content)}


def read(manifest: Any, step: int) -> dict:
  """Returns the content of a manifest, if it is intact and of this step.

  Raises:
    Corrupted: the manifest is not intact, or of another step.
  """
  if not isinstance(manifest, dict) or manifest.keys() != {"content", "sha256"}:
    raise Corrupted(NONE)
  content = manifest["content"]
  if _digest(content) != manifest["sha256"]:
    raise Corrupted("its manifest is not what was written")
  if content["step"] != step:
    raise Corrupted(f"it is of step {content['step']}")
  return content


def shapes(content: dict) -> dict[str, tuple[int, ...]]:
  """Returns the path of every array that was saved → its shape."""
  kinds = {path: kind for path, (kind, _) in content["arrays"].items()}
  numbers = {
    path: re.findall(r"\d+", kind.split("[")[1]) for path, kind in kinds.items()
  }
  return {path: tuple(map(int, found)) for path, found in numbers.items()}


def check_types(content: dict, like: SavedState) -> None:
  """Raises Corrupted unless saved types and shapes are those of a state."""
  saved = {path: kind for path, (kind, _) in content["arrays"].items()}
  asked = _types(like)
  if missing := asked.keys() - saved.keys():
    raise Corrupted(f"it has no {_some(missing)}, and this run does")
  if foreign := saved.keys() - asked.keys():
    raise Corrupted(f"it has {_some(foreign)}, and this run does not")
  for path, kind in saved.items():
    if kind != asked[path]:
      raise Corrupted(f"its {path} is {kind}, and this run's {asked[path]}")


def check_values(content: dict, state: SavedState) -> None:
  """Raises Corrupted unless a state holds, bit for bit, what was saved."""
  prints = fingerprints(state)
  changed = [
    p for p, (_, saved) in content["arrays"].items() if prints[p] != saved
  ]
  if changed:
    raise Corrupted(f"its {_some(changed)} is not what was saved")


def _types(tree) -> dict[str, str]:
  """The path of every array → its type and shape, as in `float32[2,64]`."""
  paths, _ = jax.tree_util.tree_flatten_with_path(tree)
  return {
    jax.tree_util.keystr(path): f"{x.dtype}[{','.join(map(str, x.shape))}]"
    for path, x in paths
  }


def _digest(content) -> str:
  text = json.dumps(content, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()


def _some(paths: Iterable[str]) -> str:
  return first_few(sorted(paths))
