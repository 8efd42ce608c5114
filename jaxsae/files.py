"""Files and folders that appear whole or not at all, on disks and in stores.

A store has no renames: a file in it appears when all of it was written, so it
is written here first and copied. A folder in it is unfinished as long as it
holds `.unfinished`, which is the first file to appear and the last to go.
"""

import contextlib
import errno
import fcntl
import os
import pathlib
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from typing import TypeVar

from etils import epath

from jaxsae import process, storage
from jaxsae.errors import StorageError, UserError

Path = str | os.PathLike[str]
AnyPath = TypeVar("AnyPath", pathlib.Path, epath.Path)

_UNFINISHED = ".unfinished"
_OF_FILE = re.compile(r"\..+\.(\d+)\.partial")
_OF_FOLDER = re.compile(r"[^.].*\.partial")
_PATIENCE = 60.0  # seconds to wait while others remove leftovers, or a store
_A_DAY = 86_400.0  # seconds


@contextlib.contextmanager
def whole_file(path: AnyPath) -> Iterator[AnyPath]:
  """Yields a local path; the file written there becomes `path`.

  Makes missing folders. If anything fails, a file already at `path` stays.

  Args:
    path: a `pathlib.Path`, or an `epath.Path`, which may be remote.
  """
  if is_remote(path):
    with tempfile.TemporaryDirectory(prefix="jaxsae-") as folder:
      here = type(path)(folder) / path.name
      yield here
      storage.upload(here, path)
    return
  path.parent.mkdir(parents=True, exist_ok=True)
  partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
  try:
    yield partial
    partial.replace(path)
  finally:
    partial.unlink(missing_ok=True)


@contextlib.contextmanager
def whole_folder(path: AnyPath) -> Iterator[AnyPath]:
  """Yields a folder to fill with `whole_file`; it becomes `path` at the end.

  If anything fails, it is removed. What a killed process left of it is removed
  first.

  Args:
    path: the new folder, local or remote; `is_finished` must be false.
  """
  if is_remote(path):
    with _marked(path):
      yield path
    return
  partial = path.with_name(path.name + ".partial")
  shutil.rmtree(partial, ignore_errors=True)
  try:
    partial.mkdir(parents=True)
    with locked(partial):
      yield partial
      partial.replace(path)
  finally:
    shutil.rmtree(partial, ignore_errors=True)


def expanded(path: Path) -> str:
  """Returns a path as it was meant: a leading `~` is the home folder.

  Shells replace it only at the start of a word, not in `--workdir=~/run`. All
  paths that a person gives, by a setting or in Python, pass through here.

  Raises:
    UserError: there is no such home folder.
  """
  text = os.fspath(path)
  found = os.path.expanduser(text)
  if found.startswith("~") and found == text:
    raise UserError(
      f"{text} has no meaning, because nobody's home folder is known as"
      f" {text.partition('/')[0]}; give the whole path, or set HOME"
    )
  return found


def place(path: Path) -> epath.Path:
  """Returns the place of a path that a person gives, local or remote."""
  return epath.Path(expanded(path))


def is_finished(path: pathlib.Path | epath.Path) -> bool:
  """Returns whether there is a file or a folder, and nothing was killed in it.

  Only in a store can a folder be there and not be finished.
  """
  if not is_remote(path):
    return path.exists()
  return path.exists() and not (path / _UNFINISHED).exists()


def is_file(path: pathlib.Path | epath.Path) -> bool:
  """Returns whether there is a file, and not a pipe or a device."""
  # To epath, all is a file that is no folder.
  return path.is_file() if is_remote(path) else os.path.isfile(path)


def files_in(folder: pathlib.Path | epath.Path) -> list[str]:
  """Lists all files below a folder, relative to it and in order."""
  if is_remote(folder):
    return [n for n in storage.names(folder) if n != _UNFINISHED]
  top = pathlib.Path(folder)
  paths = sorted(path for path in top.rglob("*") if path.is_file())
  return [path.relative_to(top).as_posix() for path in paths]


def entries(folder: AnyPath) -> list[AnyPath]:
  """Lists what is in a folder; nothing if it does not exist."""
  try:
    # Making a folder by hand leaves an empty file with its name in a store.
    return [path for path in folder.iterdir() if path != folder]
  except FileNotFoundError:
    return []


@contextlib.contextmanager
def _marked(path: AnyPath) -> Iterator[None]:
  """Marks a remote folder as unfinished while the block lasts."""
  if is_finished(path):
    raise FileExistsError(errno.EEXIST, "it exists", str(path))
  _empty(path)
  (path / _UNFINISHED).write_text("This folder is still being written.\n")
  try:
    yield
  except StorageError:
    raise  # it would fail again; the next to write here removes what is left
  except BaseException:
    with contextlib.suppress(Exception), storage.patience(_PATIENCE):
      _empty(path)
    raise
  storage.remove(path, [_UNFINISHED])


def _empty(path: pathlib.Path | epath.Path) -> None:
  """Removes all of an unfinished remote folder, the mark at the end."""
  storage.remove(path, [*files_in(path), _UNFINISHED])


def unfinished(folder: AnyPath) -> Iterator[AnyPath]:
  """Yields the partial files that `whole_file` left here when it was killed.

  It does not check whether their process still lives: no other process may be
  writing to the folder.
  """
  return (path for path in entries(folder) if _OF_FILE.fullmatch(path.name))


def remove_leftovers(folder: AnyPath) -> None:
  """Removes what killed processes left in a folder that others also write to.

  Keeps what a living process of this machine is writing; a process of another
  machine counts as dead.
  """
  for path in entries(folder):
    of_file = _OF_FILE.fullmatch(path.name)
    if of_file and not _is_other(int(of_file[1])):
      path.unlink(missing_ok=True)
    elif _OF_FOLDER.fullmatch(path.name) and not is_remote(path):
      _remove_if_left(pathlib.Path(path))


@contextlib.contextmanager
def scratch(parent: str | os.PathLike[str], prefix: str) -> Iterator[str]:
  """Yields a new folder inside a local one, and removes it at the end.

  First removes folders with this prefix that killed processes left.
  """
  with contextlib.ExitStack() as holding:
    with locked(parent, patience=_PATIENCE):
      for left in pathlib.Path(parent).glob(f"{prefix}*"):
        _remove_if_left(left)
      folder = tempfile.mkdtemp(prefix=prefix, dir=parent)
      holding.enter_context(locked(folder))
    holding.callback(shutil.rmtree, folder, ignore_errors=True)
    yield folder


def _remove_if_left(folder) -> None:
  """Removes a folder unless a living process holds its lock.

  Where there are no locks, removes it if nobody has touched it for a day.
  """
  taken = contextlib.suppress(
    BlockingIOError, FileNotFoundError, NotADirectoryError
  )
  with taken, locked(folder) as is_locked:
    touched = max(p.stat().st_mtime for p in (folder, *folder.iterdir()))
    if is_locked or time.time() - touched > _A_DAY:
      shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def locked(
  folder: str | os.PathLike[str], patience: float = 0.0
) -> Iterator[bool]:
  """Holds the lock of a folder; a process that dies releases its locks.

  Yields whether there is such a lock: object stores and some network file
  systems have none.

  Args:
    folder: an existing folder, local or remote.
    patience: seconds to wait if another process holds the lock.

  Raises:
    BlockingIOError: another process still holds the lock.
  """
  if is_remote(folder):
    yield False
    return
  descriptor = os.open(folder, os.O_RDONLY)
  try:
    yield _lock(descriptor, time.monotonic() + patience)
  finally:
    os.close(descriptor)


def is_remote(path: str | os.PathLike[str]) -> bool:
  """Returns whether a path is a URL, such as gs://bucket/folder."""
  return "://" in str(path)


def _lock(descriptor: int, until: float) -> bool:
  while True:
    try:
      fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
      return True
    except BlockingIOError:
      if time.monotonic() > until:
        raise
      time.sleep(0.02)
    except OSError:
      return False


def _is_other(pid: int) -> bool:
  """Returns whether it is a living process other than this one."""
  return pid != os.getpid() and process.is_there(pid)
