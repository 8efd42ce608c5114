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
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from typing import TypeVar

from etils import epath

from jaxsae import process, storage
from jaxsae.brief import brief
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
  with _place_named(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = _partial_file(path)
    try:
      yield partial
      partial.replace(path)
    finally:
      with contextlib.suppress(OSError):
        partial.unlink(missing_ok=True)


def _partial_file(path: AnyPath) -> AnyPath:
  return path.with_name(f".{path.name}.{os.getpid()}.partial")


@contextlib.contextmanager
def _place_named(path: pathlib.Path | epath.Path) -> Iterator[None]:
  """Adds the path to errors of the system that do not say where they arose."""
  try:
    yield
  except OSError as error:
    if error.errno is not None and error.filename is None:
      error.filename = str(path)
    raise


def check_writable(path: str | os.PathLike[str], remedy: str) -> None:
  """Raises UserError if a file or folder cannot be made at a path.

  To be called before work that takes long. Makes a file where the path begins,
  and removes it.

  Args:
    path: the path, local or remote.
    remedy: what to do instead, for the message.
  """
  try:
    attempt = _try_remote if is_remote(path) else _try_local
    attempt(path)
  except OSError as error:
    raise UserError(
      f"{path} cannot be written ({error.strerror or error}); {remedy}."
    ) from error


def _try_remote(path: Path) -> None:
  tried = _partial_file(epath.Path(path))
  tried.write_text("")
  storage.remove(tried.parent, [tried.name])


def _try_local(path: Path) -> None:
  local = pathlib.Path(path).absolute()
  if local.is_dir():
    raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
  there = next(one for one in local.parents if os.path.lexists(one))
  for name in local.relative_to(there).parts:
    tried = _partial_file(there / name)
    tried.touch()
    tried.unlink()


@contextlib.contextmanager
def refusals_told(path: str | os.PathLike[str]) -> Iterator[None]:
  """Raises UserError for what the system refuses while a path is written."""
  try:
    yield
  except OSError as error:
    raise UserError(
      f"{path} cannot be written ({error.strerror or error}); choose a place"
      " that has room and that you may write to."
    ) from error


@contextlib.contextmanager
def whole_folder(path: AnyPath) -> Iterator[AnyPath]:
  """Yields a folder to fill with `whole_file`; it becomes `path` at the end.

  If anything fails, it is removed. What a killed process left of it is removed
  first.

  Args:
    path: the new folder, local or remote; `is_finished` must be false.

  Raises:
    UserError: another process is making it, or has made it meanwhile.
  """
  if is_remote(path):
    with _marked(path):
      yield path
    return
  with _place_named(path), contextlib.ExitStack() as holding:
    partial = _begin_folder(path, holding)
    yield partial
    try:
      partial.replace(path)
    except OSError as error:
      if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
        raise
      raise UserError(
        f"{path} has appeared meanwhile; choose another folder."
      ) from error


def _begin_folder(path: AnyPath, holding: contextlib.ExitStack) -> AnyPath:
  """Makes the folder that becomes `path`, locked, and removes it at the end."""
  path.parent.mkdir(parents=True, exist_ok=True)
  with locked(path.parent, patience=_PATIENCE):
    for left in _parts_of(path):
      _remove_if_left(left)
    if any(_is_held(part) for part in _parts_of(path)):
      raise UserError(
        f"{path} is being written by another process; wait for it, or choose"
        " another folder."
      )
    partial = path.with_name(f"{path.name}.{secrets.token_hex(4)}.partial")
    partial.mkdir()
    holding.callback(shutil.rmtree, partial, ignore_errors=True)
    holding.enter_context(locked(partial))
  return partial


def _parts_of(path: AnyPath) -> list[AnyPath]:
  """Lists the folders that other processes began, to become `path`."""
  name = re.compile(re.escape(path.name) + r"(\.[0-9a-f]{8})?\.partial")
  return [one for one in entries(path.parent) if name.fullmatch(one.name)]


def _is_held(folder: pathlib.Path | epath.Path) -> bool:
  """Returns whether a living process holds the lock of a folder."""
  try:
    with locked(folder):
      return False
  except BlockingIOError:
    return True
  except OSError:  # it is gone
    return False


def expanded(path: Path) -> str:
  """Returns a path as it was meant: a leading `~` is the home folder.

  Shells replace it only at the start of a word, not in `--workdir=~/run`. All
  paths that a person gives, by a setting or in Python, pass through here.

  Raises:
    UserError: it is no path, or there is no such home folder.
  """
  text = os.fspath(path) if isinstance(path, str | os.PathLike) else None
  if not isinstance(text, str):
    raise UserError(
      f"{brief(path)} is not a path; give text or a pathlib.Path."
    )
  found = os.path.expanduser(text)
  if found.startswith("~") and found == text:
    raise UserError(
      f"{text} has no meaning, because nobody's home folder is known as"
      f" {text.partition('/')[0]}; give the whole path, or set HOME"
    )
  return found


def given_path(path: Path) -> epath.Path:
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
  """Marks a remote folder as unfinished while the block lasts.

  Nobody can tell whether the process of an older mark still lives, so a new one
  takes the folder over, and the older one is told at its end.
  """
  if is_finished(path):
    raise FileExistsError(errno.EEXIST, "it exists", str(path))
  _empty(path)
  mark = f"This folder is still being written, by {secrets.token_hex(8)}.\n"
  (path / _UNFINISHED).write_text(mark)
  try:
    yield
  except StorageError:
    raise  # it would fail again; the next to write here removes what is left
  except BaseException:
    with contextlib.suppress(Exception), storage.patience(_PATIENCE):
      if _has_mark(path, mark):
        _empty(path)
    raise
  if not _has_mark(path, mark):
    raise UserError(
      f"{path} has been taken over by another process that writes there; wait"
      " for it, or choose another folder."
    )
  storage.remove(path, [_UNFINISHED])


def _has_mark(path: pathlib.Path | epath.Path, mark: str) -> bool:
  try:
    return (path / _UNFINISHED).read_text() == mark
  except FileNotFoundError:
    return False


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
