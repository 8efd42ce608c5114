"""Identifies a process, so that others can tell when it is dead."""

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
