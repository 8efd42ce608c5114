"""Checks that all processes of a pod do the same: code, settings and data.

Processes that differ train together without an error: each computes its own
part of a sum that then means nothing.
"""

import collections
import hashlib
import importlib.metadata
import json
import os
import pathlib
import platform
import socket
from collections.abc import Iterator, Mapping

import jax

from jaxsae import overrides, pod
from jaxsae.errors import UserError, first_few
from jaxsae.train.config.run import TrainConfig

# Where a host finds things is its own affair: what it finds there is compared.
PLACES = ("lm", "data.source", "data.cache")

PACKAGES = (
  "jax",
  "jaxlib",
  "libtpu",
  "flax",
  "optax",
  "orbax-checkpoint",
  "grain",
  "tensorstore",
  "numpy",
)

# What changes the arithmetic of a program without being a setting of a run.
_FLAGS = ("XLA_FLAGS", "LIBTPU_INIT_ARGS")
_JAX = (
  "jax_default_matmul_precision",
  "jax_default_prng_impl",
  "jax_enable_x64",
  "jax_numpy_dtype_promotion",
  "jax_threefry_partitionable",
)


def check(facts: Mapping[str, str]) -> None:
  """Raises UserError in all processes unless each has the same facts.

  All processes must call it.

  Args:
    facts: what is compared, by its name in the error.
  """
  mine = {"host": socket.gethostname(), "facts": dict(facts)}
  every = [json.loads(text) for text in pod.gather_texts(json.dumps(mine))]
  names = dict.fromkeys(name for one in every for name in one["facts"])
  odd = [text for name in names if (text := _difference(name, every))]
  if odd:
    raise UserError(
      f"the processes of this pod differ: {first_few(odd, separator='; ')}."
      " Set up all hosts alike and start the same command on each."
    )


def of_program(config: TrainConfig) -> dict[str, str]:
  """Returns the code, the packages and the settings that a process runs."""
  given = {
    f"--{setting.name}": overrides.show(setting.value)
    for setting in overrides.settings(config)
    if setting.name not in PLACES
  }
  return given | of_code()


def of_code() -> dict[str, str]:
  """Returns the code and the packages that a process runs, and JAX's flags."""
  versions = {f"package {name}": version(name) for name in PACKAGES}
  jaxs = {name: str(getattr(jax.config, name, None)) for name in _JAX}
  flags = {name: os.environ.get(name, "") for name in _FLAGS}
  code = {"code of jaxsae": _code(), "Python": platform.python_version()}
  return code | versions | jaxs | flags


def _code() -> str:
  """Returns a digest of the package's source files."""
  folder = pathlib.Path(__file__).parents[2]
  whole = hashlib.sha256()
  for file in sorted(folder.rglob("*.py")):
    whole.update(file.relative_to(folder).as_posix().encode())
    whole.update(file.read_bytes())
  return whole.hexdigest()[:12]


def version(package: str) -> str:
  """Returns the version of a package, or "not installed"."""
  try:
    return importlib.metadata.version(package)
  except importlib.metadata.PackageNotFoundError:
    return "not installed"  # such as jaxsae, when run from a checkout


def _difference(name: str, every: list[dict]) -> str:
  """Says who differs in one fact, in a clause; empty if nobody does.

  The most common value counts as right; among equals, that of the first.
  """
  values = [one["facts"].get(name, "nothing") for one in every]
  usual = collections.Counter(values).most_common(1)[0][0]
  odd = list(_named(every, values, usual))
  if not odd:
    return ""
  return f"{name} is {usual or 'empty'}, but {first_few(odd)}"


def _named(every: list[dict], values: list[str], usual: str) -> Iterator[str]:
  for index, (one, value) in enumerate(zip(every, values, strict=True)):
    if value != usual:
      yield f"{value or 'empty'} in process {index} on {one['host']}"
