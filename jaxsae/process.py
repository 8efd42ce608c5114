"""Identifies a process, so that others can tell when it is dead."""

import contextlib
import math
import os
import pathlib
import socket


def place() -> str:
  """Names the place within which a process ID means one process.

  That is one container of one machine, between two boots.
  """
  try:
    boot = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{socket.gethostname()} {boot} {os.readlink('/proc/self/ns/pid')}"
  except OSError:  # not Linux
    return socket.gethostname()


def birth(pid: int) -> str | None:
  """Returns the start time of a process, to tell it from others with its ID.

  None if there is no such process, or if it is dead and only its ID remains.
  """
  if not os.path.exists("/proc/self/stat"):
    return "" if is_there(pid) else None
  try:
    stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
  except (FileNotFoundError, ProcessLookupError):
    return None
  # The process name comes first, in brackets, and may contain brackets.
  fields = stat.rpartition(")")[2].split()
  return None if fields[0] in "ZX" else fields[19]


def is_there(pid: int) -> bool:
  """Returns whether a process here has this ID, be it dead or not."""
  try:
    os.kill(pid, 0)
  except (ProcessLookupError, OverflowError):
    return False
  except PermissionError:
    pass
  return True


# Where Linux says how much memory a container may use: both versions.
_LIMITS = (
  "/sys/fs/cgroup/memory.max",
  "/sys/fs/cgroup/memory/memory.limit_in_bytes",
)


def memory_limit() -> float:
  """Returns the bytes of memory that processes here may use together.

  That of the machine, or of the container if that is less; infinite where
  neither is known.
  """
  known = [_limit_in(pathlib.Path(path)) for path in _LIMITS]
  # Some systems do not say.
  with contextlib.suppress(AttributeError, ValueError, OSError):
    known.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
  return min(
    (limit for limit in known if limit and limit > 0), default=math.inf
  )


def _limit_in(path: pathlib.Path) -> int | None:
  """Returns the number in a file; None if there is none."""
  try:
    return int(path.read_text())
  except (OSError, ValueError):  # "max": no limit
    return None
