"""The reader of safetensors returns what was written, and trusts no header."""

import itertools
import json

import hypothesis
import hypothesis.strategies as st
import ml_dtypes
import numpy as np
import pytest
import safetensors
from etils import epath
from safetensors import numpy as library

from jaxsae.errors import UserError
from jaxsae.lm.formats.safetensors import FLOATS, LONGEST_HEADER, read_header

TENSORS = {
  "a": np.arange(6, dtype=np.float32).reshape(2, 3),
  "b.weight": np.array([1.5, -2.0], ml_dtypes.bfloat16),
  "c": np.linspace(0, 1, 8, dtype=np.float16).reshape(2, 2, 2),
  "empty": np.zeros((0, 4), np.float32),
  "alone": np.array(7.0, np.float32),
}


@pytest.fixture
def file(tmp_path):
  """Writes a file with the library, with metadata."""
  path = epath.Path(tmp_path / "x.safetensors")
  library.save_file(TENSORS, path, metadata={"format": "pt"})
  return path


def test_what_the_library_writes_is_read(file):
  found = read_header(file)
  assert found.keys() == TENSORS.keys()
  for name, tensor in found.items():
    value = tensor.read()
    assert value.dtype == TENSORS[name].dtype == FLOATS[tensor.dtype]
    assert tensor.shape == value.shape == TENSORS[name].shape
    np.testing.assert_array_equal(value, TENSORS[name])


@pytest.mark.parametrize(
  "dtype", ["bool", "uint8", "int16", "uint32", "int64", "float64", "complex64"]
)
def test_tensors_of_other_types_are_allowed(tmp_path, dtype):
  path = epath.Path(tmp_path / "x.safetensors")
  library.save_file({"a": np.ones(3, dtype), "b": np.ones(2, "f4")}, path)
  found = read_header(path)
  assert found["a"].dtype not in FLOATS
  np.testing.assert_array_equal(found["b"].read(), np.ones(2))


def test_only_the_bytes_of_the_tensor_are_read(file, monkeypatch):
  found = read_header(file)
  read = []
  opened = type(file).open

  def watched(path, mode):
    stream = opened(path, mode)

    class Watched:
      def __enter__(self):
        return self

      def __exit__(self, *_):
        stream.close()

      def seek(self, *where):
        return stream.seek(*where)

      def read(self, size):
        read.append(size)
        return stream.read(size)

    return Watched()

  monkeypatch.setattr(type(file), "open", watched)
  found["c"].read()
  assert read == [16]


# Headers that must not be trusted.


def write(path, header, content=b"", size=None):
  text = header if isinstance(header, bytes) else json.dumps(header).encode()
  size = len(text) if size is None else size
  path.write_bytes(size.to_bytes(8, "little") + text + content)
  return epath.Path(path)


def entry(dtype="F32", shape=(2,), offsets=(0, 8), **more):
  return {"dtype": dtype, "shape": shape, "data_offsets": offsets, **more}


def refused(path, match="is damaged"):
  with pytest.raises(UserError, match=match) as error:
    read_header(path)
  assert "\n" not in str(error.value)
  assert str(path) in str(error.value)


@pytest.mark.parametrize(
  "header, content",
  [
    (b"", b""),
    (b"{", b""),
    (b"\xff\xfe", b""),
    (b"[" * 100_000, b""),
    ([], b""),
    ("x", b""),
    ({"a": 3}, bytes(8)),
    ({"a": {}}, bytes(8)),
    ({"a": {"dtype": "F32", "shape": [2]}}, bytes(8)),
    ({"a": entry(dtype=4)}, bytes(8)),
    ({"a": entry(dtype="F31")}, bytes(8)),
    ({"a": entry(shape=None)}, bytes(8)),
    ({"a": entry(shape="ab")}, bytes(8)),
    ({"a": entry(shape=["2"])}, bytes(8)),
    ({"a": entry(shape=[2.0])}, bytes(8)),
    ({"a": entry(shape=[True, 2])}, bytes(8)),
    ({"a": entry(shape=[-1, -2])}, bytes(8)),
    ({"a": entry(shape=[2**40, 2**40])}, bytes(8)),
    ({"a": entry(shape=[3])}, bytes(8)),
    ({"a": entry(dtype="F16")}, bytes(8)),
    ({"a": entry(offsets=[0])}, bytes(8)),
    ({"a": entry(offsets=[0, 8, 16])}, bytes(8)),
    ({"a": entry(offsets=[8, 0])}, bytes(8)),
    ({"a": entry(offsets=[-8, 0])}, bytes(8)),
    ({"a": entry(offsets=[8, 16])}, bytes(8)),
    ({"a": entry(offsets=[8, 16])}, bytes(16)),
    ({"a": entry(offsets=[0, 2**70])}, bytes(8)),
    ({"a": entry()}, bytes(7)),
    ({"a": entry()}, bytes(9)),
    ({"a": entry(), "b": entry()}, bytes(8)),
    ({"a": entry(), "b": entry(offsets=[4, 12])}, bytes(12)),
    ({"a": entry(), "b": entry(offsets=[12, 20])}, bytes(20)),
    ({}, b"x"),
  ],
)
def test_an_impossible_header_is_refused(tmp_path, header, content):
  refused(write(tmp_path / "x.safetensors", header, content))


@pytest.mark.parametrize("size", [0, 1, 10**6, 2**40, 2**63, 2**64 - 1])
def test_a_header_of_another_length_is_refused(tmp_path, size):
  refused(write(tmp_path / "x.safetensors", {"a": entry()}, bytes(8), size))


def test_a_header_that_is_too_long_is_refused(tmp_path):
  file = tmp_path / "x.safetensors"
  with file.open("wb") as opened:
    opened.write((LONGEST_HEADER + 1).to_bytes(8, "little"))
    opened.truncate(
      LONGEST_HEADER + 1000
    )  # a sparse file, which takes no space on disk
  refused(epath.Path(file), "a header of 100000001 bytes")


@pytest.mark.parametrize("length", [0, 1, 7])
def test_a_file_too_short_for_a_length_is_refused(tmp_path, length):
  file = epath.Path(tmp_path / "x.safetensors")
  file.write_bytes(bytes(length))
  refused(file)


def test_a_file_that_shrinks_after_its_header_was_read_is_an_error(file):
  found = read_header(file)
  file.write_bytes(file.read_bytes()[:-4])
  last = max(found.values(), key=lambda tensor: tensor.start + tensor.size)
  with pytest.raises(UserError, match=f"is damaged: {last.name} ends early"):
    last.read()


@hypothesis.given(st.data())
def test_every_accepted_header_is_accepted_by_the_library(
  tmp_path_factory, data
):
  """Changes bytes of the header at random."""
  path = tmp_path_factory.mktemp("spoilt") / "x.safetensors"
  library.save_file(TENSORS, path)
  content = bytearray(path.read_bytes())
  header = 8 + int.from_bytes(content[:8], "little")
  for _ in range(data.draw(st.integers(1, 3))):
    where = data.draw(st.integers(0, header - 1))
    content[where] = data.draw(st.sampled_from(b'0123456789{}[],:"abFU_ \xff'))
  path.write_bytes(content)
  try:
    found = read_header(epath.Path(path))
  except UserError:
    return
  with safetensors.safe_open(path, framework="numpy") as tensors:
    assert set(tensors.keys()) == found.keys()
    for name in found:
      assert tuple(tensors.get_slice(name).get_shape()) == found[name].shape


def test_the_order_of_entries_does_not_matter(tmp_path):
  pair = {
    "a": entry(),
    "b": entry(offsets=(8, 16)),
    "c": entry(offsets=(8, 8), shape=(0,)),
  }
  content = np.arange(4, dtype=np.float32).tobytes()
  for order in itertools.permutations(pair):
    header = {name: pair[name] for name in order}
    found = read_header(write(tmp_path / "x.safetensors", header, content))
    np.testing.assert_array_equal(found["b"].read(), [2, 3])
