"""Reads safetensors files one tensor at a time, from a disk or a bucket.

A file is the length of its header (8 bytes, little-endian), the header (JSON:
name → type, shape, where its bytes begin and end), and the tensors' bytes
without gaps. The format is that of github.com/huggingface/safetensors, whose
own reader wants a whole local file.
"""

import dataclasses
import json
import math

import ml_dtypes
import numpy as np
from etils import epath

from jaxsae.errors import UserError

LONGEST_HEADER = 100_000_000  # bytes; the library refuses longer ones too

# The types that a weight may have, and bytes per element of all types.
FLOATS = {"F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16}
_BYTES = {
  **{name: np.dtype(dtype).itemsize for name, dtype in FLOATS.items()},
  **dict.fromkeys(["BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0"], 1),
  **dict.fromkeys(["U16", "I16"], 2),
  **dict.fromkeys(["U32", "I32"], 4),
  **dict.fromkeys(["U64", "I64", "F64", "C64"], 8),
}


@dataclasses.dataclass(frozen=True)
class Tensor:
  """Place, type and shape of one tensor in a file.

  Attributes:
    file: its file.
    name: its name there, for messages.
    dtype: the format's name of its type, such as `"BF16"`.
    shape: its shape.
    start: its first byte, counted from the start of the file.
    size: its number of bytes.
  """

  file: epath.Path
  name: str
  dtype: str
  shape: tuple[int, ...]
  start: int
  size: int

  def read(self) -> np.ndarray:
    """Reads the tensor, read-only; its type must be one of `FLOATS`."""
    with self.file.open("rb") as file:
      file.seek(self.start)
      content = file.read(self.size)
    if len(content) != self.size:
      raise _damaged(self.file, f"{self.name} ends early")
    return np.frombuffer(content, FLOATS[self.dtype]).reshape(self.shape)


def read_header(file: epath.Path) -> dict[str, Tensor]:
  """Reads a file's header as name → tensor; no tensor is read.

  Raises:
    UserError: the file is not safetensors, or is truncated.
  """
  header, start, length = _read_json(file)
  header.pop("__metadata__", None)
  tensors = [_tensor(file, name, x, start) for name, x in header.items()]
  _check_no_gaps(file, tensors, start, length)
  return {tensor.name: tensor for tensor in tensors}


def _read_json(path):
  """Returns the header, the byte where it ends, and the file's length."""
  with path.open("rb") as file:
    file.seek(0, 2)
    length = file.tell()  # not every remote file returns it from `seek`
    file.seek(0)
    size = int.from_bytes(file.read(8), "little")
    if length < 8 or size > min(length - 8, LONGEST_HEADER):
      raise _damaged(path, f"a header of {size} bytes in a file of {length}")
    content = file.read(size)
  try:
    header = json.loads(content.decode())
  except (ValueError, RecursionError) as error:
    raise _damaged(path, f"its header is not JSON, {error}") from error
  if not isinstance(header, dict):
    raise _damaged(path, "its header is not a JSON object")
  return header, 8 + size, length


def _tensor(file, name, entry, start) -> Tensor:
  match entry:
    case {"dtype": str(), "shape": list(), "data_offsets": [_, _]}:
      numbers = [*entry["shape"], *entry["data_offsets"]]
    case _:
      raise _damaged(file, f"{name} has no dtype, shape and data_offsets")
  if not all(type(n) is int and n >= 0 for n in numbers):
    raise _damaged(file, f"{name} has a size that is not a whole number")
  if entry["dtype"] not in _BYTES:
    raise _damaged(file, f"{name} is of the unknown type {entry['dtype']}")
  begin, end = entry["data_offsets"]
  size = math.prod(entry["shape"]) * _BYTES[entry["dtype"]]
  if end - begin != size:
    raise _damaged(file, f"{name} takes {end - begin} bytes and needs {size}")
  shape = tuple(entry["shape"])
  return Tensor(file, name, entry["dtype"], shape, start + begin, size)


def _check_no_gaps(file, tensors, start, length):
  """Raises UserError if there are gaps or overlaps, which are not allowed."""
  for tensor in sorted(tensors, key=lambda t: (t.start, t.size)):
    if tensor.start != start:
      raise _damaged(file, f"{tensor.name} does not begin where others end")
    start += tensor.size
  if start != length:
    raise _damaged(file, f"it has {length} bytes, its header says {start}")


def _damaged(file, why: str) -> UserError:
  return UserError(f"{file} is damaged: {why}.")
