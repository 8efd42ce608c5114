"""Keeps compiled programs beside the runs, so that a restart is quick.

JAX finds a program by its code, versions, flags and kind of device. The kind of
a CPU includes its instruction set, so different machines may share a folder. A
program from the cache equals the compiled one, bit for bit.
"""

import contextlib
import dataclasses
import os
import sys
import time
import zlib

import jax
from etils import epath
from jax.experimental.compilation_cache import compilation_cache
from jaxlib.utils import absl_set_min_log_level

from jaxsae import pod
from jaxsae.files import given_path, is_remote

OPTION = "jax_compilation_cache_dir"  # JAX's name of the cache's folder
FOLDER = ".compiled"  # a folder beside the run's
STAMP = "checked"  # a file in it: entries older than this are intact

# JAX's events: it looks for a program, finds it, has compiled or loaded it.
ASKED = "/jax/compilation_cache/compile_requests_use_cache"
FOUND = "/jax/compilation_cache/cache_hits"
MADE = "/jax/core/compile/backend_compile_duration"

FATAL = 3  # XLA's log level


@dataclasses.dataclass(frozen=True)
class StartupTime:
  """Seconds from the start of the process to the end of the first step.

  Attributes:
    seconds: seconds from the start until the first step was over.
    compiling: seconds of these spent compiling, or loading from the cache.
    found: whether every program came from the cache.
  """

  seconds: float
  compiling: float
  found: bool

  def __str__(self) -> str:
    what = "load what was compiled before" if self.found else "compile"
    return (
      f"first step after {self.seconds:.1f} s, of which {self.compiling:.1f} s"
      f" to {what}"
    )


class CompileCache:
  """A context in which compiled programs are kept on disk and reused.

  A folder that the user gave JAX, as in JAX_COMPILATION_CACHE_DIR, is used
  instead of ours, and is not cleaned.

  Args:
    workdir: the run's folder, which may be remote; the cache is beside it.
  """

  def __init__(self, workdir: str):
    self._began = time.perf_counter()
    self._folder = given_path(workdir).parent / FOLDER
    self._asked = self._found = 0
    self._compiling = 0.0
    self._ending = contextlib.ExitStack()

  def __enter__(self):
    jax.monitoring.register_event_listener(self._note)
    self._ending.callback(jax.monitoring.unregister_event_listener, self._note)
    jax.monitoring.register_event_duration_secs_listener(self._note_time)
    self._ending.callback(
      jax.monitoring.unregister_event_duration_listener, self._note_time
    )
    if getattr(jax.config, OPTION) is None and _is_safe():
      self._use()
    return self

  def __exit__(self, *_):
    self._ending.close()

  def start(self) -> StartupTime:
    """Returns the seconds from the start until now."""
    return StartupTime(
      seconds=time.perf_counter() - self._began,
      compiling=self._compiling,
      found=0 < self._asked == self._found,
    )

  def _use(self) -> None:
    try:
      self._folder.mkdir(parents=True, exist_ok=True)
      if pod.is_leader() and not is_remote(self._folder):
        _remove_truncated(self._folder)
    except OSError as error:
      print(
        f"note: {self._folder} cannot be written ({error.strerror}), so the"
        " next start compiles again",
        file=sys.stderr,
      )
      return
    self._set(OPTION, str(self._folder))
    # Keep quick ones too: a start compiles only a few programs.
    self._set("jax_persistent_cache_min_compile_time_secs", 0.0)
    self._ending.callback(compilation_cache.reset_cache)

  def _set(self, name: str, value) -> None:
    """Sets one of JAX's options until the context ends."""
    self._ending.callback(jax.config.update, name, getattr(jax.config, name))
    jax.config.update(name, value)

  def _note(self, event: str, **_) -> None:
    self._asked += event == ASKED
    self._found += event == FOUND
    if event == ASKED and jax.default_backend() == "cpu":
      # For every program it loads, XLA warns that this machine may lack two
      # "features" that are only preferences of its code generator and that
      # no machine has.
      absl_set_min_log_level(FATAL)

  def _note_time(self, event: str, duration_secs: float, **_) -> None:
    if event == MADE:
      self._compiling += duration_secs
      absl_set_min_log_level(int(os.environ["TF_CPP_MIN_LOG_LEVEL"]))


def _is_safe() -> bool:
  """Returns whether all processes find what process 0, the only writer, wrote.

  On CPUs a program has a different name in each process, so the others would
  still compile while process 0 waits for them in its step. On GPUs, XLA needs
  all processes to compile, and would wait for one that found its program.
  """
  return jax.process_count() == 1 or jax.default_backend() == "tpu"


def _remove_truncated(folder: epath.Path) -> None:
  """Removes entries that a killed process left half-written.

  JAX writes entries in place, and never rewrites one that exists.
  """
  now, stamp = time.time(), folder / STAMP
  checked = os.stat(stamp).st_mtime if stamp.exists() else 0
  for entry in folder.glob("*-cache"):
    if os.stat(entry).st_mtime >= checked and not _is_whole(entry):
      entry.unlink(missing_ok=True)
  stamp.touch()
  os.utime(stamp, (now, now))


def _is_whole(entry: epath.Path) -> bool:
  data = entry.read_bytes()
  if data and data[:1] != b"x":
    return True  # not zlib but zstandard, which JAX uses where it is installed
  try:
    zlib.decompress(data)
  except zlib.error:
    return False
  return True
