"""Sources yield their documents in order, or raise a UserError."""

import contextlib
import gzip
import json
import lzma
import os
import resource
import shlex
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from array_record.python.array_record_module import ArrayRecordWriter

from jaxsae.data import formats
from jaxsae.data.documents import (
  Document,
  Unreadable,
  check_source,
  list_source,
  read_documents,
)
from jaxsae.data.formats import BOOK_CHARACTERS, RECORDS_AT_ONCE
from jaxsae.errors import StorageError, UserError

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
  assert list_source(str(tmp_path)).ignored == {".bin": 1}


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
  assert read(tmp_path) == sections  # a folder with no other file is the same
  (tmp_path / "more.txt").write_text("more")
  assert len(read(tmp_path)) == 2  # beside others a file is one document


@pytest.mark.parametrize(
  "text",
  [
    "\r".join(f"old line {i}" for i in range(3000)),
    "A sentence ends. " * 2000,
    "no sentence ends " * 2000,
    "一个句子。" * 8000,
    "字" * 40_000,
    "begins\n\nlike this, then has " + "one long line " * 2000,
  ],
  ids=["\\r", "sentences", "words", "cjk", "characters", "one line"],
)
def test_a_lone_text_is_divided_whatever_its_lines(tmp_path, text):
  (tmp_path / "a.txt").write_text(text, newline="")
  sections = [document.text for document in read(tmp_path / "a.txt")]
  assert len(sections) > 1 and "".join(sections) == text
  assert max(map(len, sections)) < 2 * BOOK_CHARACTERS


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
  with pytest.raises(UserError, match="gs://b/texts is not on a disk"):
    check_source("gs://b/texts")


def test_the_error_about_a_folder_without_text_lists_suffixes(tmp_path):
  (tmp_path / "a.bin").write_text("")
  with pytest.raises(UserError, match=r"\(1 \.bin, 0 unr.*parquet"):
    list_source(str(tmp_path))


@pytest.mark.parametrize("name", [n for n in TABLES if "record" not in n])
def test_the_error_about_a_missing_column_lists_the_columns(tmp_path, name):
  TABLES[name](tmp_path / name, TEXTS)
  with pytest.raises(UserError, match=f"{name} has no column 'story'.*text"):
    read(tmp_path / name, column="story")


def test_a_column_of_numbers_is_refused(tmp_path):
  write_parquet(tmp_path / "a.parquet", TEXTS)
  with pytest.raises(UserError, match=r"column 'id' of .* holds int64") as e:
    read(tmp_path, column="id")
  hint = str(e.value).split("set --data.text_column to a column of text: ")[1]
  assert [d.text for d in read(tmp_path, column=hint)] == TEXTS


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow"])
def test_two_columns_of_one_name_are_refused(tmp_path, name):
  table = pa.table([pa.array(["x"]), pa.array(["y"])], names=["text", "text"])
  if name == "a.parquet":
    pq.write_table(table, tmp_path / name)
  else:
    with pa.ipc.new_file(tmp_path / name, table.schema) as file:
      file.write_table(table)
  with pytest.raises(UserError, match=f"{name} has several columns 'text'"):
    read(tmp_path)


def test_a_table_without_any_text_has_no_hint_of_a_column(tmp_path):
  pq.write_table(pa.table({"id": [1, 2]}), tmp_path / "a.parquet")
  for column in ("id", "text"):
    with pytest.raises(UserError, match="no other holds text; give files"):
      read(tmp_path, column=column)


KINDS = {
  "string": pa.string(),
  "large": pa.large_string(),
  "view": pa.string_view(),
  "dictionary": pa.dictionary(pa.int32(), pa.string()),
  "json": pa.json_(pa.string()),
  "bytes": pa.binary(),
  "view of bytes": pa.binary_view(),
}


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_type_of_text_is_read(tmp_path, suffix, kind):
  table = pa.table({"text": pa.array(["one", None, "日本"]).cast(pa.string())})
  table = table.set_column(0, "text", cast(table["text"], KINDS[kind]))
  write_table(tmp_path / f"a.{suffix}", table)
  assert [d.text for d in read(tmp_path)] == ["one", "", "日本"]


def cast(column, kind):
  if isinstance(kind, pa.ExtensionType):
    return kind.wrap_array(column.combine_chunks())
  return column.cast(kind)


def write_table(path, table):
  if path.suffix == ".parquet":
    pq.write_table(table, path)
  else:
    with pa.ipc.new_stream(path, table.schema) as writer:
      writer.write_table(table)


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
@pytest.mark.parametrize("kind", [pa.null(), pa.float64(), pa.list_(pa.int8())])
def test_a_shard_without_any_text_is_empty(tmp_path, suffix, kind):
  """Writers guess the type of such a column, each in its own way."""
  nothing = pa.table({"text": pa.array([None, None], kind)})
  write_table(tmp_path / f"0.{suffix}", nothing)
  write_table(tmp_path / f"1.{suffix}", pa.table({"text": ["one"]}))
  assert [d.text for d in read(tmp_path)] == ["", "", "one"]


def test_a_shard_without_rows_needs_no_column(tmp_path):
  pq.write_table(pa.table({}), tmp_path / "0.parquet")
  write_parquet(tmp_path / "1.parquet", ["one"])
  assert [d.text for d in read(tmp_path)] == ["one"]


def test_shards_without_the_column_of_others_are_counted(tmp_path):
  write_parquet(tmp_path / "0.parquet", TEXTS)
  odd = tmp_path / "1.parquet"
  pq.write_table(pa.table({"story": ["one"]}), odd)
  with pytest.raises(UserError, match=rf"1 of 2 .*{odd}; take them out"):
    read(tmp_path)
  odd.unlink()
  assert len(read(tmp_path)) == len(TEXTS)


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


@contextlib.contextmanager
def files_to_open(count):
  """Lets this process open only so many more files."""
  before = resource.getrlimit(resource.RLIMIT_NOFILE)
  highest = max(map(int, os.listdir("/proc/self/fd")))
  with contextlib.ExitStack() as ending:
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 20, before[1]))
    ending.callback(resource.setrlimit, resource.RLIMIT_NOFILE, before)
    opened = []
    with contextlib.suppress(OSError):
      while True:
        opened.append(ending.enter_context(open(os.devnull)))
    for file in opened[:count]:
      file.close()
    yield


@pytest.mark.parametrize("name", [*TABLES, "a.txt"])
def test_any_number_of_files_is_read_with_few_open(tmp_path, name):
  write = TABLES.get(name, lambda path, texts: path.write_text(texts[0]))
  for i in range(100):
    write(tmp_path / f"{i:03}-{name}", [f"text {i}"])
  with files_to_open(15):
    assert [d.text for d in read(tmp_path)] == [f"text {i}" for i in range(100)]


@pytest.mark.parametrize("name", [*TABLES, "a.txt"])
def test_a_file_that_cannot_be_opened_is_not_told_as_damaged(tmp_path, name):
  write = TABLES.get(name, lambda path, texts: path.write_text(texts[0]))
  write(tmp_path / name, TEXTS)
  (tmp_path / f"b{name[-4:]}").write_bytes((tmp_path / name).read_bytes())
  read(tmp_path)  # what is imported stays open
  listing = list_source(str(tmp_path))
  with files_to_open(0), pytest.raises(UserError) as error:
    list(read_documents(listing, "text", None, 0))
  for part in (f"{name} cannot be read", "Too many open files", "ulimit -n"):
    assert part in str(error.value)


def test_a_disk_that_fails_is_not_told_as_a_missing_text(tmp_path, monkeypatch):
  for name in ("a.txt", "b.txt"):
    (tmp_path / name).write_text(name)

  def failing(path):
    raise OSError(5, "Input/output error", path)

  monkeypatch.setattr(formats, "file_bytes", failing)
  with pytest.raises(StorageError, match=r"a\.txt cannot be read \(Input"):
    read(tmp_path)


# With lines and quotes in a record, and one of more than a megabyte.
HARD_TEXTS = [*TEXTS, 'two\n\n"lines"', "word" * 500_000]
RECORDS = [{"id": i, "text": text} for i, text in enumerate(HARD_TEXTS)]
JSON_LINES = "".join(json.dumps(record) + "\n" for record in RECORDS)
CSV = "id,text\n" + "".join(
  '{id},"{quoted}"\n'.format(**r, quoted=r["text"].replace('"', '""'))
  for r in RECORDS
)
OTHERS = {
  "it's train.jsonl": JSON_LINES.encode(),
  "train.ndjson": JSON_LINES.encode(),
  "TRAIN.JSONL.GZ": gzip.compress(JSON_LINES.encode()),
  "train.csv": CSV.encode(),
  "train.csv.gz": gzip.compress(CSV.encode()),
  "a book.txt.gz": gzip.compress("\n\n".join(TEXTS).encode()),
  "a.parquet.gz": b"",
}


def follow(hint):
  """Runs the command in a hint, with this Python as `python`."""
  command = hint.split("as with `")[1].rsplit("`", 1)[0]
  words = [sys.executable if w == "python" else w for w in shlex.split(command)]
  subprocess.run(words, check=True)


@pytest.mark.parametrize("name", OTHERS)
def test_a_file_of_another_format_is_refused_with_a_way(tmp_path, name):
  path = tmp_path / name
  path.write_bytes(OTHERS[name])
  if name == "a.parquet.gz":
    write_parquet(tmp_path / "x", TEXTS)
    path.write_bytes(gzip.compress((tmp_path / "x").read_bytes()))
    (tmp_path / "x").unlink()
  with pytest.raises(UserError) as error:
    check_source(str(path))
  assert name in str(error.value)
  with pytest.raises(UserError, match="has no text to read") as of_folder:
    list_source(str(tmp_path))
  assert name in str(of_folder.value)
  if path.suffix == ".GZ":  # gunzip, too, goes by small letters
    path = path.rename(tmp_path / name.lower())
  follow(str(of_folder.value).replace(name, path.name))
  path.unlink()
  (made,) = tmp_path.iterdir()
  texts = [document.text.strip() for document in read(made)]
  wanted = {
    "a.parquet.gz": TEXTS,
    "a book.txt.gz": ["\n\n".join(TEXTS)],
  }
  assert texts == wanted.get(name, HARD_TEXTS)


def test_what_the_hint_for_lines_cannot_unpack_is_to_be_unpacked(tmp_path):
  path = tmp_path / "a.jsonl.xz"
  path.write_bytes(lzma.compress(JSON_LINES.encode()))
  with pytest.raises(UserError, match="is packed") as error:
    check_source(str(path))
  follow(str(error.value))
  assert (tmp_path / "a.jsonl").read_text() == JSON_LINES


@pytest.mark.parametrize(
  "name",
  [
    *("a.json", "a.tsv", "a.html", "a.PDF", "a.zip", "a.tar.gz", "a.txt.zst"),
    *("a.tfrecord", "a.docx", "a.jsonl.xz", "a.warc.gz", "a.npy", "a.ipynb"),
  ],
)
def test_formats_that_are_not_read_are_known_by_their_suffix(tmp_path, name):
  (tmp_path / name).write_text("it may well be text")
  with pytest.raises(UserError, match=rf"{name} is (packed|not plain text)"):
    list_source(str(tmp_path / name))


@pytest.mark.parametrize(
  "name", ["a", "a.log", "a.tex", "a.2024", "v1.0 notes"]
)
def test_a_lone_file_of_no_known_format_is_text(tmp_path, name):
  (tmp_path / name).write_text("one")
  assert [d.text for d in read(tmp_path / name)] == ["one"]


def test_what_is_left_out_is_counted_by_suffix(tmp_path):
  for name in ("a.txt", "b.png", "c.PNG", "d.jsonl.gz", "e", "f.so.1\x1b[2J"):
    (tmp_path / name).write_text("one")
  assert list_source(str(tmp_path)).ignored == {
    ".png": 2,
    ".jsonl.gz": 1,
    "without suffix": 1,
    "with another name": 1,
  }


def test_a_folder_whose_text_is_mostly_in_json_is_refused(tmp_path):
  """What would be read is what comes with the text."""
  (tmp_path / "README.md").write_text("about the text")
  (tmp_path / "train.jsonl").write_text(JSON_LINES)
  with pytest.raises(UserError, match=r"train\.jsonl is not plain") as error:
    list_source(str(tmp_path))
  follow(str(error.value))
  (tmp_path / "train.jsonl").unlink()
  assert [d.text for d in read(tmp_path)] == HARD_TEXTS


def test_a_data_card_is_no_document(tmp_path):
  (tmp_path / "README.md").write_text("about the text")
  (tmp_path / "data").mkdir()
  write_parquet(tmp_path / "data" / "train-00000.parquet", TEXTS)
  assert [d.text for d in read(tmp_path)] == TEXTS
  assert list_source(str(tmp_path)).beside_tables == ["README.md"]
  both = list_source(str(tmp_path), text_beside_tables=True)
  found = [d.text for d in read_documents(both, "text", None, 0)]
  assert found == ["about the text", *TEXTS] and not both.beside_tables
