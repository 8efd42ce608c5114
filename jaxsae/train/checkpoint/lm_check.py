"""Checks that a run's language model is the one that it started with.

Its name or folder says little: weights move, and folders are filled anew. So
`lm.json` in the run's folder holds a fingerprint of the weights.
"""

import jax
import jax.numpy as jnp
from etils import epath

from jaxsae import pod
from jaxsae.errors import UserError
from jaxsae.lm import Lm
from jaxsae.train.checkpoint.fingerprint import combined, digest
from jaxsae.train.process.workdir import (
  read_config,
  read_record,
  write_json,
)

RECORD = "lm.json"


def check(path: epath.Path, lm: Lm) -> None:
  """Checks the language model; all processes must call it.

  Args:
    path: the run's folder; `lm.json` is written there at the start.
    lm: the language model now.

  Raises:
    UserError: its weights are others, or cannot be compared because the run is
      older than `lm.json` and names another model.
  """
  now = fingerprint(lm)
  pod.on_leader(lambda: _check(path, lm.name, now))


def fingerprint(lm: Lm) -> str:
  """Returns a digest of the weights, equal in bfloat16 and in float32.

  They are compared as bfloat16, in which they are on a TPU. The digest does
  not depend on the mesh, nor on the format of the files.
  """
  found, _ = jax.tree_util.tree_flatten_with_path(lm.params)
  sums = [jax.device_get(_as_bfloat16(x)) for _, x in found]
  paths = [jax.tree_util.keystr(path) for path, _ in found]
  return combined(dict(zip(paths, sums, strict=True)))


# One array at a time: many have the same shape, and compile once.
@jax.jit
def _as_bfloat16(x: jax.Array) -> jax.Array:
  return digest(x.astype(jnp.bfloat16))


def _check(path: epath.Path, name: str, now: str) -> None:
  record = path / RECORD
  if record.exists():
    saved = read_record(record, ("name", "fingerprint"))
    if saved["fingerprint"] != now:
      raise UserError(
        f"{path} was started with another language model: the weights of"
        f" --lm={name} are not those of {saved['name']}; give the folder that"
        " holds them now."
      )
  elif not (path / "checkpoints").exists():
    write_json(record, {"name": name, "fingerprint": now})
  elif (before := read_config(path).lm) != name:
    raise UserError(
      f"{path} was started with --lm={before}, and, being an older run, has no"
      f" record of its weights to compare --lm={name} with; give the same"
      " again."
    )
