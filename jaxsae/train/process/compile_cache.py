"""What was compiled is kept beside the runs, so that a restart need not.

JAX finds it by program, versions, flags and kind of device; for a CPU that
covers the instructions that it knows, so machines of several kinds may share a
folder. What comes from there is what was compiled, bit for bit.
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
from jaxlib import utils

from jaxsae import pod
from jaxsae.files import is_remote

FOLDER = ".compiled"  # in the parent of the run's folder
STAMP = "checked"  # in that: entries up to its time were whole

# JAX's events: it looks for a program, has found it, has it one way or another.
ASKED = "/jax/compilation_cache/compile_requests_use_cache"
FOUND = "/jax/compilation_cache/cache_hits"
MADE = "/jax/core/compile/backend_compile_duration"

FATAL = 3  # level of what XLA logs


@dataclasses.dataclass(frozen=True)
class StartupTime:
  """What it took to come to the first step.

  Attributes:
    seconds: from the start until the step was over.
    compiling: seconds of these that went to compiling, or to loading.
    found: whether all had been compiled before.
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
  """While it is entered, what is compiled is kept, and found again.

  A folder that the user has given JAX, as in JAX_COMPILATION_CACHE_DIR, is left
  as it is, and used in place of ours.

  Args:
    workdir: the run's folder, which may be remote; ours is beside it.
  """

  def __init__(self, workdir: str):
    self._began = time.perf_counter()
    self._folder = epath.Path(workdir).parent / FOLDER
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
    if jax.config.jax_compilation_cache_dir is None and _is_safe():
      self._use()
    return self

  def __exit__(self, *_):
    self._ending.close()

  def start(self) -> StartupTime:
    """What it took to come here."""
    return StartupTime(
      seconds=time.perf_counter() - self._began,
      compiling=self._compiling,
      found=0 < self._asked == self._found,
    )

  def _use(self) -> None:
    try:
      self._folder.mkdir(parents=True, exist_ok=True)
      if pod.leads() and not is_remote(self._folder):
        _mend(self._folder)
    except OSError as error:
      print(
        f"note: {self._folder} can not be written ({error.strerror}), so the"
        " next start compiles again",
        file=sys.stderr,
      )
      return
    self._set("jax_compilation_cache_dir", str(self._folder))
    # All of it: a start compiles a few programs, not many.
    self._set("jax_persistent_cache_min_compile_time_secs", 0.0)
    self._ending.callback(compilation_cache.reset_cache)

  def _set(self, name: str, value) -> None:
    """Until the end."""
    self._ending.callback(jax.config.update, name, getattr(jax.config, name))
    jax.config.update(name, value)

  def _note(self, event: str, **_) -> None:
    self._asked += event == ASKED
    self._found += event == FOUND
    if event == ASKED and jax.default_backend() == "cpu":
      # Of every program it loads, XLA says that this machine may lack two
      # "features" which are mere preferences of its own code generator, and
      # which no machine has.
      utils.absl_set_min_log_level(FATAL)

  def _note_time(self, event: str, seconds: float, **_) -> None:
    if event == MADE:
      self._compiling += seconds
      utils.absl_set_min_log_level(int(os.environ["TF_CPP_MIN_LOG_LEVEL"]))


def _is_safe() -> bool:
  """Whether all processes find what the first one, which alone writes, did.

  On CPUs a program has another name in each process, so the others would still
  compile while the first waits for them in its step. On GPUs, XLA compiles with
  all processes taking part, and one that had found its program would be missed.
  """
  return jax.process_count() == 1 or jax.default_backend() == "tpu"


def _mend(folder: epath.Path) -> None:
  """Removes what a process left half written when it was killed.

  JAX writes in place, and never writes again what is there.
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
    return True  # not zlib, but zstandard, which JAX takes where it is there
  try:
    zlib.decompress(data)
  except zlib.error:
    return False
  return True
