"""Gives each run one owner, named by `lease.json` in its folder.

A lease is over at once when its process is known to be dead, which is visible
only from the same machine and container. Otherwise it is over when nobody has
renewed it for 30 seconds, on the clock of the process that waits for it: the
clocks of two machines are never compared.

A process that was stopped, and continues after another took over, finds
another name in the file and ends. It checks before every line of metrics and
every checkpoint, unless it has checked in the last five seconds.

Where a folder can be locked (local disks), everything here is done under its
lock, so if several start at once, exactly one becomes the owner. Where it
cannot (object stores, some network disks), the last to write wins, and others
see that a second later, or, if they were slower, at their next check. Such a
store must let every process read the file as it was last written.
"""

import contextlib
import dataclasses
import datetime
import json
import math
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Self

from etils import epath

from jaxsae import pod, process, storage
from jaxsae.errors import RunError, StorageError, UserError
from jaxsae.files import locked, whole_file

FILE = "lease.json"
# Seconds.
RENEW_EVERY = 10.0
OVER_AFTER = 30.0  # without being renewed
TRUSTED = 5.0  # after a check
LOOK_EVERY = 1.0  # at another's lease, to see whether it is renewed


@contextlib.contextmanager
def hold(folder: epath.Path) -> Iterator["Lease"]:
  """Makes this run the owner of its folder, for as long as the block lasts.

  All processes of the run call it; process 0 holds the lease. If it is not
  clear at once whether the previous owner is dead, waits up to 30 seconds to
  see whether it renews its lease.

  Args:
    folder: the run's folder; made if it does not exist.

  Raises:
    UserError: a live run owns the folder; raised in all processes.
  """
  lease = Lease(folder)
  while not pod.on_leader(lease.take):
    time.sleep(LOOK_EVERY)
  with lease:
    yield lease


@dataclasses.dataclass(frozen=True)
class Owner:
  """The owner of a run, as `lease.json` names it."""

  host: str
  pid: int
  place: str  # `process.place()`
  birth: str | None  # `process.birth(pid)`
  attempt: str  # unique to each process that takes a lease
  started: str  # for people to read
  renewed: float  # by the clock of its host, in seconds

  @classmethod
  def me(cls) -> Self:
    """Makes an owner of this process."""
    now = datetime.datetime.now(datetime.UTC)
    return cls(
      host=socket.gethostname(),
      pid=os.getpid(),
      place=process.place(),
      birth=process.birth(os.getpid()),
      attempt=uuid.uuid4().hex,
      started=f"{now:%Y-%m-%d %H:%M:%S} UTC",
      renewed=round(time.time(), 3),
    )

  @property
  def is_here(self) -> bool:
    """Returns whether the owner's process is visible from this one."""
    return self.place == process.place()

  @property
  def is_dead(self) -> bool:
    """Returns whether the owner is certainly dead."""
    return self.is_here and process.birth(self.pid) != self.birth

  @property
  def is_fresh(self) -> bool:
    """Returns whether it was renewed just now, by the clock of this machine."""
    return self.is_here and time.time() - self.renewed < OVER_AFTER

  def __str__(self) -> str:
    return f"host {self.host}, pid {self.pid}, started {self.started}"


class Lease:
  """The lease of one folder, in process 0; in others it does nothing."""

  def __init__(self, folder: epath.Path):
    self._folder, self._file = folder, folder / FILE
    self._me = Owner.me()
    self._seen: Owner | None = None  # another owner, perhaps dead
    self._seen_at = self._looked_at = -math.inf
    self._one_at_a_time = threading.Lock()
    self._ended = threading.Event()
    self._thread = threading.Thread(target=self._keep, daemon=True)

  def take(self) -> bool:
    """Becomes the owner if there is none; False if it is too early to know.

    Raises:
      UserError: there is an owner, or the folder cannot be written.
    """
    try:
      self._folder.mkdir(parents=True, exist_ok=True)
      with locked(self._folder, patience=OVER_AFTER) as is_locked:
        owner = self._read()
        if owner is not None and owner.attempt == self._me.attempt:
          return True  # written by an earlier try, and still there
        if not self._is_over(owner):
          return False
        self._write()
        self._report_takeover(owner)
        return is_locked
    except OSError as error:
      raise UserError(
        f"{self._folder} cannot be written ({error.strerror}); give"
        " another folder with --workdir=DIR."
      ) from error

  def check(self) -> None:
    """Checks that this process is still the owner; cheap after a recent check.

    Raises:
      RunError: it is not, or cannot tell. Nothing may be written.
    """
    if pod.is_leader() and _now() - self._looked_at > TRUSTED:
      self.renew()

  def renew(self) -> None:
    """Renews the lease, to show that this process is alive.

    Raises:
      RunError: it is no longer the owner, or cannot tell.
      StorageError: it cannot tell, because the store does not answer.
    """
    with self._one_at_a_time:
      looking_at = _now()
      try:
        with locked(self._folder, patience=OVER_AFTER):
          self._check_same(self._read())
          # A full disk does not end the lease: nobody else can write either.
          # A store is given little time: what was read must still hold.
          with (
            contextlib.suppress(OSError, StorageError),
            storage.patience(RENEW_EVERY),
          ):
            self._write()
      except (OSError, UserError) as error:
        self._check_recent(error)
      else:
        self._looked_at = looking_at

  def __enter__(self):
    if pod.is_leader():
      self._thread.start()
    return self

  def __exit__(self, *_):
    self._ended.set()
    if pod.is_leader():
      self._thread.join()
      with (
        contextlib.suppress(OSError, UserError, StorageError),
        storage.patience(RENEW_EVERY),
      ):
        self._release()

  def _release(self) -> None:
    with locked(self._folder, patience=OVER_AFTER):
      owner = self._read()
      if owner is not None and owner.attempt == self._me.attempt:
        self._file.unlink()

  def _keep(self) -> None:
    while not self._ended.wait(RENEW_EVERY):
      # Any error, such as an unreachable store, will also reach `check`.
      with contextlib.suppress(Exception), storage.patience(RENEW_EVERY):
        self.renew()

  def _check_recent(self, error: Exception) -> None:
    """Raises RunError if the lease was unreadable for too long."""
    if _now() - self._looked_at > OVER_AFTER:
      raise RunError(
        f"{self._file} cannot be read ({error}), so another process may own the"
        " run by now; run the same command again to resume."
      ) from error

  def _is_over(self, owner: Owner | None) -> bool:
    if owner is None or owner.is_dead:
      return True
    if owner != self._seen:
      if self._seen is not None or owner.is_fresh:
        raise UserError(_refusal(self._folder, owner))
      self._seen, self._seen_at = owner, _now()
      print(
        f"{self._folder} has an owner ({owner}); waiting for up to"
        f" {OVER_AFTER:g} s to see whether it is alive …",
        flush=True,
      )
    return _now() - self._seen_at > OVER_AFTER

  def _check_same(self, owner: Owner | None) -> None:
    if owner is None or owner.attempt != self._me.attempt:
      self._looked_at = -math.inf
      other = "is gone" if owner is None else f"now belongs to {owner}"
      raise RunError(
        f"{self._file} {other}: this process was stopped for so long that"
        " another took over, or someone removed the file. It ends without"
        " writing anything more; the other continues."
      )

  def _read(self) -> Owner | None:
    try:
      text = self._file.read_text()
    except FileNotFoundError:
      return None
    if not text.strip():  # what a power failure may leave
      return None
    try:
      return Owner(**json.loads(text))
    except (ValueError, TypeError) as error:
      raise UserError(
        f"{self._file} does not say who owns the run ({error}); remove it if no"
        " run is under way here."
      ) from error

  def _write(self) -> None:
    self._me = dataclasses.replace(self._me, renewed=round(time.time(), 3))
    with whole_file(self._file) as partial:
      partial.write_text(json.dumps(dataclasses.asdict(self._me), indent=2))
    self._looked_at = _now()

  def _report_takeover(self, owner: Owner | None) -> None:
    if owner is not None:
      ago = max(0.0, self._me.renewed - owner.renewed)
      print(
        f"{self._folder}: takes over from {owner}, which was last alive"
        f" {ago:.0f} s ago and did not end cleanly",
        flush=True,
      )


def _refusal(folder, owner: Owner) -> str:
  return (
    f"{folder} belongs to a run that is under way on {owner}; wait for it to"
    f" end, or end it (`kill {owner.pid}` there), or give another folder with"
    " --workdir=DIR."
  )


def _now() -> float:
  """Seconds on a clock that also runs while the machine sleeps, if it can."""
  clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
  return time.clock_gettime(clock)
