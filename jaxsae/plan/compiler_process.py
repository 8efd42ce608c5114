"""A process in which JAX finds the TPU's compiler, but looks for no TPU."""

import importlib.util
import os
import pathlib
import subprocess
import sys
from collections.abc import Mapping, Sequence

from jaxsae.errors import UserError

LIBRARY = "TPU_LIBRARY_PATH"  # where JAX looks first

# JAX looks for no accelerator, on this machine or at a metadata server; several
# processes may compile at once; nothing is logged; programs are not kept, for
# without a TPU they cannot be loaded again. JAX reads these variables when it
# is imported.
_ENVIRONMENT = {
  "JAX_PLATFORMS": "cpu",
  "JAX_ENABLE_COMPILATION_CACHE": "false",
  "TPU_SKIP_MDS_QUERY": "1",
  "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
  "TPU_WORKER_HOSTNAMES": "localhost",
  "TPU_ACCELERATOR_TYPE": "v5litepod-8",
  "TPU_LOG_DIR": "disabled",
  "TPU_STDERR_LOG_LEVEL": "3",
  "TPU_MIN_LOG_LEVEL": "3",
}


def run(argv: Sequence[str]) -> int:
  """Runs `jaxsae plan ARGV` as a subprocess and returns its exit status.

  Raises:
    UserError: the TPU's compiler is not installed.
  """
  command = [sys.executable, "-m", "jaxsae.plan", *argv]
  return subprocess.run(command, env=environment(os.environ)).returncode


def enter() -> None:
  """Restarts this program as such a process, unless it is one already.

  Raises:
    UserError: the TPU's compiler is not installed.
  """
  made = environment(os.environ)
  if made != dict(os.environ):
    os.execve(sys.executable, [sys.executable, *sys.argv], made)


def environment(base: Mapping[str, str]) -> dict[str, str]:
  """Returns the environment variables that such a process needs.

  Raises:
    UserError: the TPU's compiler is not installed.
  """
  made = {**base, **_ENVIRONMENT}
  library = _library(base)
  if library is not None:
    made[LIBRARY] = str(library)
  return made


def _library(base: Mapping[str, str]) -> pathlib.Path | None:
  """Returns the compiler's path, or None if JAX finds it by itself."""
  if LIBRARY in base:
    if not pathlib.Path(base[LIBRARY]).is_file():
      raise UserError(
        f"{LIBRARY}={base[LIBRARY]} is not a file; give the path of libtpu.so,"
        " or unset it."
      )
    return None
  if importlib.util.find_spec("libtpu") is not None:
    return None
  beside = pathlib.Path(sys.prefix) / "tpu/libtpu/libtpu.so"  # `make test`'s
  if beside.is_file():
    return beside
  raise UserError(
    "A plan needs the TPU's compiler, and libtpu is not installed; run"
    ' `pip install "jaxsae[tpu]"` on Linux, or set'
    f" {LIBRARY} to a libtpu.so."
  )
