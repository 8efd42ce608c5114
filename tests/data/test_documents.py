"""Sources yield their documents in order, or raise a UserError."""

import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from array_record.python.array_record_module import ArrayRecordWriter

from jaxsae.data.documents import (
  Document,
  Unreadable,
  list_source,
  read_documents,
)
from jaxsae.data.formats import RECORDS_AT_ONCE
from jaxsae.errors import UserError

TEXTS = [f"text number {i}" for i in range(30)]


def write_parquet(path, texts):
  pq.write_table(pa.table({"id": range(len(texts)), "text": texts}), path, 7)


def write_arrow_file(path, texts):
  table = pa.table({"text": texts})
  with pa.ipc.new_file(path, table.schema) as writer:
    writer.write_table(table, 7)


def write_arrow_stream(path, texts):
  table = pa.table({"text": pa.array(texts).dictionary_encode()})
  with pa.ipc.new_stream(path, table.schema) as writer:
    writer.write_table(table, 7)


def write_array_record(path, texts):
  writer = ArrayRecordWriter(str(path), "group_size:1")
  for text in texts:
    writer.write(text if isinstance(text, bytes) else text.encode())
  writer.close()


TABLES = {
  "a.parquet": write_parquet,
  "file.arrow": write_arrow_file,
  "stream.arrow": write_arrow_stream,
  "a.array_record": write_array_record,
}


def read(source, limit=None, seed=0, column="text"):
  listing = list_source(str(source))
  return list(read_documents(listing, column, limit, seed))


@pytest.mark.parametrize("name", TABLES)
def test_every_row_of_a_table_is_a_document(tmp_path, name):
  TABLES[name](tmp_path / name, TEXTS)
  expected = [Document(f"{name}#{i}", text) for i, text in enumerate(TEXTS)]
  assert read(tmp_path / name) == expected
  assert read(tmp_path) == expected


@pytest.mark.parametrize("name", TABLES)
def test_a_limit_chooses_rows(tmp_path, name):
  TABLES[name](tmp_path / name, TEXTS)
  some = read(tmp_path / name, limit=10, seed=4)
  assert len(some) == 10 and some == read(tmp_path, limit=10, seed=4)
  assert set(some) < set(read(tmp_path))


def test_long_tables_are_read_completely(tmp_path):
  texts = [str(i) for i in range(2 * RECORDS_AT_ONCE + 5)]
  write_array_record(tmp_path / "a.array_record", texts)
  assert [d.text for d in read(tmp_path)] == texts


def test_folders_are_read_by_name(tmp_path):
  for name in ("b.txt", "a/z.md", "a.py", "a/y.RST", "c.bin", ".hidden.txt"):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(name)
  assert [d.name for d in read(tmp_path)] == [
    "a.py",
    "a/y.RST",
    "a/z.md",
    "b.txt",
  ]
  assert list_source(str(tmp_path)).ignored == 1


def test_a_loop_of_links_is_entered_once(tmp_path):
  (tmp_path / "a").mkdir()
  (tmp_path / "a" / "loop").symlink_to(tmp_path)
  (tmp_path / "a" / "gone.txt").symlink_to(tmp_path / "nowhere")
  (tmp_path / "a" / "a.txt").write_text("one")
  listing = list_source(str(tmp_path))
  assert [file.name for file in listing.files] == ["a/a.txt"]
  assert [fault.name for fault in listing.unreadable] == ["a/gone.txt"]


def test_a_pipe_is_not_waited_for(tmp_path):
  os.mkfifo(tmp_path / "pipe.txt")
  with pytest.raises(UserError, match="not a regular file"):
    list_source(str(tmp_path / "pipe.txt"))
  with pytest.raises(UserError, match="1 unreadable"):
    list_source(str(tmp_path))


def test_the_sections_of_a_lone_file_add_up_to_the_file(tmp_path):
  text = "\n\n".join(f"paragraph {i} " * 40 for i in range(200))
  (tmp_path / "book.txt").write_text(text)
  sections = read(tmp_path / "book.txt")
  assert len(sections) > 5
  assert "".join(section.text for section in sections) == text
  assert sections[1].name == "book.txt#1"
  assert len(read(tmp_path)) == 1  # in a folder a file is one document


def test_the_standard_library_is_python_source():
  listing = list_source("python-stdlib")
  names = {file.name for file in listing.files}
  assert {"ast.py", "json/decoder.py"} <= names
  assert not any("site-packages" in name for name in names)
  assert all(name.endswith(".py") for name in names)


@pytest.mark.parametrize(
  ("content", "reason"),
  [
    (b"abc\0def", "is binary (a zero byte at byte 3)"),
    ("naïve".encode("latin-1"), "is not UTF-8 (at byte 2)"),
  ],
)
def test_a_file_that_is_not_text_is_named(tmp_path, content, reason):
  (tmp_path / "bad.txt").write_bytes(content)
  with pytest.raises(UserError) as error:
    read(tmp_path / "bad.txt")
  assert f"bad.txt {reason}" in str(error.value)
  (tmp_path / "good.txt").write_text("good")
  assert read(tmp_path) == [
    Unreadable("bad.txt", reason),
    Document("good.txt", "good"),
  ]


def test_a_record_that_is_not_text_is_named(tmp_path):
  write_array_record(tmp_path / "a.array_record", [b"fine", b"\xff"])
  assert read(tmp_path)[1] == Unreadable(
    "a.array_record#1", "is not UTF-8 (at byte 0)"
  )
  with pytest.raises(UserError, match=r"a.array_record#1 is not UTF-8"):
    read(tmp_path / "a.array_record")


def test_a_byte_order_mark_is_removed(tmp_path):
  (tmp_path / "a.txt").write_bytes("word".encode("utf-8-sig"))
  assert read(tmp_path)[0].text == "word"


def test_a_missing_source_is_named(tmp_path):
  with pytest.raises(UserError, match="nowhere' does not exist"):
    list_source(str(tmp_path / "nowhere"))


def test_the_error_about_a_folder_without_text_lists_suffixes(tmp_path):
  (tmp_path / "a.bin").write_text("")
  with pytest.raises(UserError, match=r"1 files of other kinds.*parquet"):
    list_source(str(tmp_path))


@pytest.mark.parametrize("name", [n for n in TABLES if "record" not in n])
def test_the_error_about_a_missing_column_lists_the_columns(tmp_path, name):
  TABLES[name](tmp_path / name, TEXTS)
  with pytest.raises(UserError, match=f"{name} has no column 'story'.*text"):
    read(tmp_path / name, column="story")


def test_a_column_of_numbers_is_refused(tmp_path):
  write_parquet(tmp_path / "a.parquet", TEXTS)
  with pytest.raises(UserError, match=r"column 'id' of .* holds int64"):
    read(tmp_path, column="id")


def test_nulls_are_empty_text(tmp_path):
  write_parquet(tmp_path / "a.parquet", ["one", None])
  assert [d.text for d in read(tmp_path)] == ["one", ""]


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("keep", [0, 10, 0.5, -3])
def test_a_truncated_table_is_named(tmp_path, name, keep):
  path = tmp_path / name
  TABLES[name](path, TEXTS)
  size = path.stat().st_size
  os.truncate(path, int(size * keep) if 0 < keep < 1 else keep % size)
  with pytest.raises(UserError, match=f"{name} is not a readable"):
    read(path)


@pytest.mark.parametrize("name", TABLES)
def test_a_table_that_cannot_be_read_is_an_error(tmp_path, name):
  """A text left out is counted; a table could hold any number of texts."""
  (tmp_path / "a.txt").write_text("one")
  (tmp_path / name).symlink_to(tmp_path / "nowhere")
  with pytest.raises(UserError, match=f"{name} cannot be read"):
    list_source(str(tmp_path))
  (tmp_path / name).rename(tmp_path / "b.txt")
  assert len(list_source(str(tmp_path)).unreadable) == 1


def test_a_folder_that_cannot_be_listed_is_named(tmp_path, monkeypatch):
  (tmp_path / "a.txt").write_text("one")
  (tmp_path / "shut").mkdir()
  scandir = os.scandir

  def refusing(path):
    if str(path).endswith("shut"):
      raise PermissionError(13, "Permission denied", path)
    return scandir(path)

  monkeypatch.setattr(os, "scandir", refusing)
  with pytest.raises(UserError, match=r"shut cannot be listed \(Permission"):
    list_source(str(tmp_path))


def test_a_disk_is_read_from_its_top(tmp_path, monkeypatch):
  """Only the superuser may look into `lost+found` there."""
  (tmp_path / "a.txt").write_text("one")
  (tmp_path / "lost+found").mkdir()
  scandir = os.scandir

  def refusing(path):
    if str(path).endswith("lost+found"):
      raise PermissionError(13, "Permission denied", path)
    return scandir(path)

  monkeypatch.setattr(os, "scandir", refusing)
  assert [file.name for file in list_source(str(tmp_path)).files] == ["a.txt"]
