"""Reads the tensors of files that torch saved, without torch and without code.

`torch.save` writes a zip: `NAME/data.pkl`, a pickle of the objects, and
`NAME/data/KEY`, the bytes of each storage, uncompressed. A pickle may call any
function; here it can name only those that rebuild tensors and dictionaries, and
ours stand in their place. Everything else is refused before it is called.
(pytorch.org/docs/stable/notes/serialization.html; torch 2.13.)
"""

import dataclasses
import io
import math
import pickle
import pickletools
import zipfile
from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np
from etils import epath

from jaxsae.errors import RunError, UserError
from jaxsae.formats.arrays import check_memory, reason

_LARGEST = 50_000_000  # bytes of the pickle; an autoencoder's has some 2,000

# Classes of storages by their name in torch.
_DTYPES = {
  "FloatStorage": np.float32,
  "DoubleStorage": np.float64,
  "HalfStorage": np.float16,
  "BFloat16Storage": ml_dtypes.bfloat16,
  "LongStorage": np.int64,
  "IntStorage": np.int32,
}


def is_torch(file: epath.Path) -> bool:
  """Returns whether a file is a zip that torch saved; never raises."""
  try:
    with file.open("rb") as opened, zipfile.ZipFile(opened) as archive:
      return _pickle_in(archive) is not None
  except Exception:  # malformed bytes make zipfile raise almost anything
    return False


def read(file: epath.Path) -> dict[str, np.ndarray]:
  """Reads a dictionary of tensors, such as a module's `state_dict`.

  Raises:
    UserError: the file is damaged, is from before torch 1.6, or holds something
      else than tensors by name.
  """
  try:
    with file.open("rb") as opened, zipfile.ZipFile(opened) as archive:
      floats = sum(member.file_size for member in archive.infolist()) // 4
      check_memory([(floats,)], file)
      found = _load(archive)
  except (UserError, RunError, MemoryError):
    raise
  except OSError as error:
    raise UserError(f"{file} cannot be read ({error.strerror}).") from error
  except _Refused as error:
    raise UserError(
      f"{file} asks for {error}, which no tensor needs; it may be harmful, so"
      " nothing of it was run."
    ) from error
  except Exception as error:  # malformed bytes raise almost anything
    raise UserError(
      f"{file} is damaged ({reason(error)}); get it again."
    ) from error
  if not isinstance(found, dict) or not all(
    isinstance(name, str) and isinstance(x, np.ndarray)
    for name, x in found.items()
  ):
    raise UserError(f"{file} does not hold tensors by name; give a state_dict.")
  return dict(found)


class _Refused(Exception):
  """A pickle names a function or class that tensors do not need."""


@dataclasses.dataclass(frozen=True)
class _Storage:
  """The numbers that tensors are views of."""

  values: np.ndarray


def _load(archive: zipfile.ZipFile) -> Any:
  member = _pickle_in(archive)
  if member is None:
    raise ValueError("it has no data.pkl")
  if member.file_size > _LARGEST:
    raise ValueError(f"its data.pkl has {member.file_size:,} bytes")
  content = _stored(archive, member)
  _check_memo(content)
  return _Unpickler(io.BytesIO(content), archive, member.filename).load()


def _check_memo(content: bytes) -> None:
  """Raises ValueError for places in the memo that would take much memory.

  The unpickler makes room for all places up to the highest.
  """
  for opcode, argument, _ in pickletools.genops(content):
    if "PUT" in opcode.name and int(argument or 0) > len(content):
      raise ValueError(f"its data.pkl has the memo {argument}")


def _pickle_in(archive: zipfile.ZipFile) -> zipfile.ZipInfo | None:
  found = [m for m in archive.infolist() if m.filename.endswith("/data.pkl")]
  return found[0] if len(found) == 1 else None


def _stored(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
  """Reads a member, which must not unpack to more than the file has."""
  if member.compress_type != zipfile.ZIP_STORED:
    raise ValueError(f"{member.filename} is compressed, and torch stores")
  return archive.read(member)


class _Unpickler(pickle.Unpickler):
  """Unpickles tensors, as arrays, and dictionaries of them."""

  def __init__(self, content: io.BytesIO, archive: zipfile.ZipFile, name: str):
    super().__init__(content)
    self._archive = archive
    self._folder = name.removesuffix("data.pkl") + "data/"
    self._storages: dict[str, _Storage] = {}

  def find_class(self, module_name: str, global_name: str) -> Any:
    """Returns our stand-in for a name, or raises `_Refused`."""
    named = (module_name, global_name)
    if named == ("collections", "OrderedDict"):
      return _Ordered
    if named == ("torch._utils", "_rebuild_tensor_v2"):
      return _tensor
    if named == ("torch._utils", "_rebuild_parameter"):
      return _parameter
    if module_name == "torch" and global_name in _DTYPES:
      return np.dtype(_DTYPES[global_name]).type
    raise _Refused(f"{module_name}.{global_name}")

  def persistent_load(self, pid: Any) -> _Storage:
    """Returns the storage that a tensor names."""
    kind, dtype, key, _, _ = pid
    if kind != "storage" or not isinstance(key, str):
      raise ValueError("a tensor names no storage")
    if key not in self._storages:
      member = self._archive.getinfo(self._folder + key)
      content = _stored(self._archive, member)
      self._storages[key] = _Storage(np.frombuffer(content, np.dtype(dtype)))
    return self._storages[key]


class _Ordered(dict):
  """Stands for an ordered dictionary, and takes attributes as one does."""

  def __setstate__(self, state: Mapping[str, Any]) -> None:
    """Drops what torch notes beside the tensors."""


def _tensor(
  storage: _Storage, offset: Any, shape: Any, strides: Any, *_: Any
) -> np.ndarray:
  """Stands for `torch._utils._rebuild_tensor_v2`; copies nothing twice."""
  values = storage.values
  numbers = [offset, *shape, *strides]
  if not all(type(x) is int and x >= 0 for x in numbers):
    raise ValueError("a tensor has a size that is not a whole number")
  if len(shape) != len(strides) or math.prod(shape) > len(values):
    raise ValueError("a tensor is larger than its storage")
  reach = sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
  if math.prod(shape) and offset + reach >= len(values):
    raise ValueError("a tensor reaches over the end of its storage")
  view = np.lib.stride_tricks.as_strided(
    values[offset:],
    tuple(shape),
    tuple(s * values.itemsize for s in strides),
    writeable=False,
  )
  return view


def _parameter(data: Any, *_: Any) -> Any:
  """Stands for `torch._utils._rebuild_parameter`."""
  return data
