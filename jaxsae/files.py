"""Files and folders that appear whole or not at all."""

import contextlib
import os
import shutil


@contextlib.contextmanager
def whole_file(path):
  """Yields a name beside `path`; what is written there becomes `path`.

  Folders are made. If anything fails, what was at `path` stays.

  Args:
    path: a `pathlib.Path`, or an `epath.Path`, which may be remote.
  """
  path.parent.mkdir(parents=True, exist_ok=True)
  partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
  try:
    yield partial
    partial.replace(path)
  finally:
    partial.unlink(missing_ok=True)


@contextlib.contextmanager
def whole_folder(path):
  """Yields an empty folder beside `path`, which must not exist yet.

  It becomes `path` at the end; if anything fails, it is removed.

  Args:
    path: a local `pathlib.Path`.
  """
  partial = path.with_name(path.name + ".partial")
  shutil.rmtree(partial, ignore_errors=True)
  try:
    partial.mkdir(parents=True)
    yield partial
    partial.replace(path)
  finally:
    shutil.rmtree(partial, ignore_errors=True)
