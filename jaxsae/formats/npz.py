"""Reads arrays from `.npz` files that are not trusted.

Pickle is not allowed, and memory is allocated only after an array's size, type
and shape are checked: call `shape` for all arrays before `array` for any.
"""

import contextlib
import math
import os
import zipfile
import zlib
from collections.abc import Iterator

import numpy as np

from jaxsae.errors import RunError, UserError
from jaxsae.files import given_path
from jaxsae.formats.arrays import reason
from jaxsae.formats.format import Path

# Deflate cannot compress further than this, so a larger ratio is forged.
_MAX_RATIO = 1032


def names(path: Path) -> list[str] | None:
  """Lists the arrays in a file, or returns None if it cannot be read."""
  # Malformed bytes make the parsers raise almost any exception.
  with contextlib.suppress(Exception), open_zip(path) as archive:
    return [name_of(member) for member in archive.infolist()]
  return None


def name_of(member: zipfile.ZipInfo) -> str:
  """Returns the name of the array that a member of the zip holds."""
  return member.filename.removesuffix(".npy")


@contextlib.contextmanager
def open_zip(path: Path) -> Iterator[zipfile.ZipFile]:
  """Opens an `.npz` file, local or remote.

  Raises:
    OSError: the file cannot be opened.
    UserError: the file is not a zip, or only part of one.
  """
  with given_path(path).open("rb") as file:
    try:
      archive = zipfile.ZipFile(file)
    except (OSError, RunError):
      raise
    except Exception as error:  # as in names
      raise UserError(
        f"{path} is not an .npz file, or only part of one ({reason(error)});"
        " get it again."
      ) from error
    with archive:
      yield archive


def shape(
  archive: zipfile.ZipFile, member: zipfile.ZipInfo, what: str
) -> tuple[int, ...]:
  """Reads the shape in an array's header, after checking the header.

  Args:
    archive: the opened file.
    member: the array in it.
    what: the array and its file, for messages.

  Raises:
    UserError: the array is damaged, or not of floats.
  """
  shape, dtype, start = _header(archive, member, what)
  if dtype.kind != "f":
    raise UserError(
      f"{what} is of type {dtype}; an autoencoder's arrays are float32."
    )
  promised = start + math.prod(shape) * dtype.itemsize
  if promised != member.file_size or not _can_hold(archive, member):
    raise _damaged(what, "its header promises a size that it does not have")
  return shape


def array(
  archive: zipfile.ZipFile, member: zipfile.ZipInfo, what: str
) -> np.ndarray:
  """Reads an array as float32; `shape` must have accepted it.

  A value that float32 cannot hold becomes infinite.

  Raises:
    UserError: the array is damaged, or there is not enough memory.
  """
  try:
    with archive.open(member) as file:
      values = np.lib.format.read_array(file, allow_pickle=False)
  except MemoryError as error:
    raise UserError(
      f"{what} needs {member.file_size / 1e9:.1f} GB of memory, which are not"
      " free; use a machine with more."
    ) from error
  except (zipfile.BadZipFile, zlib.error, EOFError, ValueError) as error:
    raise _damaged(what, error) from error
  with np.errstate(over="ignore"):
    return values.astype(np.float32)


def _header(
  archive: zipfile.ZipFile, member: zipfile.ZipInfo, what: str
) -> tuple[tuple[int, ...], np.dtype, int]:
  """Reads an array's shape, dtype and the offset of its values."""
  try:
    with archive.open(member) as file:
      version = np.lib.format.read_magic(file)
      if version != (1, 0):  # later ones are for records; headers may be huge
        raise ValueError(f"version {version} of the .npy format")
      shape, _, dtype = np.lib.format.read_array_header_1_0(file)
      return shape, dtype, file.tell()
  except Exception as error:  # as in names
    raise _damaged(what, error) from error


def _can_hold(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bool:
  """Returns whether the compressed bytes can hold the promised size."""
  assert archive.fp is not None  # it is open
  packed = min(member.compress_size, archive.fp.seek(0, os.SEEK_END))
  ratio = 1 if member.compress_type == zipfile.ZIP_STORED else _MAX_RATIO
  return member.file_size <= packed * ratio


def _damaged(what: str, error: Exception | str) -> UserError:
  why = error if isinstance(error, str) else reason(error)
  return UserError(f"{what} is damaged ({why}); download or export it again.")
