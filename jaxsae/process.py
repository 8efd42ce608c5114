"""Which process this is, so that others can tell when it is dead."""

import os
import pathlib
import socket


def place() -> str:
  """Names where the same number means the same process.

  That is one machine from start to shutdown, and in it one container.
  """
  try:
    boot = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{socket.gethostname()} {boot} {os.readlink('/proc/self/ns/pid')}"
  except OSError:  # not Linux
    return socket.gethostname()


def birth(pid: int) -> str | None:
  """What tells a process of this place from others that had its number.

  None if there is no such process, or if it is dead and only its number is
  kept.
  """
  if not os.path.exists("/proc/self/stat"):
    return "" if is_there(pid) else None
  try:
    stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
  except (FileNotFoundError, ProcessLookupError):
    return None
  # The name before it is in brackets, and may itself have some.
  fields = stat.rpartition(")")[2].split()
  return None if fields[0] in "ZX" else fields[19]


def is_there(pid: int) -> bool:
  """Whether a process of this place has this number, be it dead or not."""
  try:
    os.kill(pid, 0)
  except (ProcessLookupError, OverflowError):
    return False
  except PermissionError:
    pass
  return True
