"""Uploads, lists, moves and removes whole files in an object store."""

import os
from collections.abc import Iterable

import fsspec

Path = str | os.PathLike[str]


def upload(local: Path, remote: Path) -> None:
  """Copies a local file to a store, where it appears whole or not at all."""
  store, name = fsspec.url_to_fs(os.fspath(remote))
  store.put_file(os.fspath(local), name)


def names(folder: Path) -> list[str]:
  """Lists all files below a remote folder, relative to it; they may be none."""
  store, top = fsspec.url_to_fs(os.fspath(folder))
  top = top.rstrip("/") + "/"
  return sorted(name.removeprefix(top) for name in store.find(top))


def remove(folder: Path, files: Iterable[str]) -> None:
  """Removes files of a remote folder, in this order; they may be gone."""
  store, top = fsspec.url_to_fs(os.fspath(folder))
  for name in files:
    try:
      store.rm_file(f"{top.rstrip('/')}/{name}")
    except FileNotFoundError:
      continue


def move(source: Path, target: Path, first: str) -> None:
  """Moves the files of a remote folder; until all are copied, none is gone.

  Args:
    source: the folder.
    target: the new folder.
    first: the file that is removed before the others.
  """
  store, top = fsspec.url_to_fs(os.fspath(source))
  _, new = fsspec.url_to_fs(os.fspath(target))
  found = names(source)
  for name in found:
    store.cp_file(f"{top}/{name}", f"{new}/{name}")
  remove(source, [first, *(name for name in found if name != first)])
