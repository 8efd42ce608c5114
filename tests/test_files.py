"""Files appear whole, and those of killed processes are removed."""

import errno
import os
import re

import pytest

from jaxsae.errors import UserError
from jaxsae.files import (
  check_writable,
  remove_leftovers,
  scratch,
  unfinished,
  whole_file,
  whole_folder,
)
from tests.train.worker import Worker

SCRIPT = """
import contextlib, pathlib
from jaxsae import files
ending = contextlib.ExitStack()
"""


@pytest.fixture
def worker():
  with Worker(SCRIPT) as one:
    assert one.hear() == "ready"
    yield one


def names(folder):
  return sorted(path.name for path in folder.iterdir())


def enter(worker, what):
  said = worker.do(f"ending.enter_context(files.{what})")
  assert "Error" not in said
  return said


def test_a_failure_keeps_the_old_file(tmp_path):
  file, folder = tmp_path / "a.txt", tmp_path / "b"
  file.write_text("before")
  with pytest.raises(ZeroDivisionError), whole_file(file) as partial:
    partial.write_text("half")
    raise ZeroDivisionError
  with pytest.raises(ZeroDivisionError), whole_folder(folder) as partial:
    (partial / "half").write_text("half")
    raise ZeroDivisionError
  assert names(tmp_path) == ["a.txt"] and file.read_text() == "before"


def test_only_files_of_killed_processes_are_swept(tmp_path, worker):
  file = enter(worker, f"whole_file(pathlib.Path({str(tmp_path)!r}) / 'a')")
  enter(worker, f"whole_folder(pathlib.Path({str(tmp_path)!r}) / 'b')")
  worker.do(f"pathlib.Path({file!r}).write_text('half')")
  before = names(tmp_path)
  assert before[0] == f".a.{worker.pid}.partial"
  assert re.fullmatch(r"b\.[0-9a-f]{8}\.partial", before[1])
  remove_leftovers(tmp_path)
  assert names(tmp_path) == before
  worker.process.kill()
  worker.process.wait()
  assert [path.name for path in unfinished(tmp_path)] == before[:1]
  remove_leftovers(tmp_path)
  assert names(tmp_path) == []


def test_one_of_two_that_make_a_folder_is_refused(tmp_path, worker):
  enter(worker, f"whole_folder(pathlib.Path({str(tmp_path)!r}) / 'b')")
  other = tmp_path / "other"
  with whole_folder(other) as partial:  # another place is free
    (partial / "mine").write_text("")
  refused = pytest.raises(UserError, match="being written by another process")
  with refused, whole_folder(tmp_path / "b"):
    pass
  assert "Error" not in worker.do("ending.close()")
  assert names(tmp_path) == ["b", "other"]


def test_a_folder_that_a_killed_process_left_is_removed(tmp_path, worker):
  enter(worker, f"whole_folder(pathlib.Path({str(tmp_path)!r}) / 'b')")
  (tmp_path / "b.partial").mkdir()  # of an older release
  (tmp_path / "b.mine.partial").mkdir()
  worker.process.kill()
  worker.process.wait()
  with whole_folder(tmp_path / "b") as partial:
    (partial / "file").write_text("whole")
  assert names(tmp_path) == ["b", "b.mine.partial"]


def test_a_folder_that_appears_meanwhile_stays(tmp_path):
  made = pytest.raises(UserError, match="appeared meanwhile")
  with made, whole_folder(tmp_path / "b") as partial:
    (partial / "file").write_text("new")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "file").write_text("old")
  assert names(tmp_path) == ["b"]
  assert (tmp_path / "b" / "file").read_text() == "old"


@pytest.mark.parametrize("whole", [whole_file, whole_folder])
def test_a_full_disk_is_told_with_its_place(tmp_path, whole):
  with (
    pytest.raises(OSError, match="No space") as caught,
    whole(tmp_path / "x"),
  ):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
  assert caught.value.filename == str(tmp_path / "x")


def test_a_place_is_tried_and_left_as_it_was(tmp_path):
  for path in (tmp_path / "new", tmp_path / "new/folders/file"):
    check_writable(path, "choose another place")
    assert names(tmp_path) == []


@pytest.mark.parametrize(
  "path",
  ["/proc/x", "/proc/x/y", "file/x", "file/x/y", ".", "", "x" * 300, "gone/x"],
)
def test_a_place_that_cannot_be_written_is_refused(tmp_path, monkeypatch, path):
  monkeypatch.chdir(tmp_path)
  (tmp_path / "file").write_text("")
  (tmp_path / "gone").symlink_to("nowhere")
  with pytest.raises(UserError, match="choose another place") as caught:
    check_writable(path, "choose another place")
  assert path in str(caught.value)
  assert names(tmp_path) == ["file", "gone"]


def test_files_of_other_programs_stay(tmp_path):
  kept = ["a.partial", ".a.partial", ".a.x.partial", ".a.99999999", "b.txt"]
  for name in kept:
    (tmp_path / name).write_text("")
  remove_leftovers(tmp_path)
  assert names(tmp_path) == sorted(kept)
  assert list(unfinished(tmp_path)) == []


def test_a_missing_folder_has_nothing_to_sweep(tmp_path):
  remove_leftovers(tmp_path / "nowhere")


def test_the_scratch_folder_of_a_killed_process_is_removed(tmp_path, worker):
  enter(worker, f"scratch({str(tmp_path)!r}, '.making-')")
  (left,) = tmp_path.iterdir()
  (left / "tokens.npy").write_text("many")
  with scratch(tmp_path, ".making-"):
    assert len(names(tmp_path)) == 2  # the other one lives
  worker.process.kill()
  worker.process.wait()
  assert names(tmp_path) == [left.name]
  with scratch(tmp_path, ".making-") as made:
    assert names(tmp_path) == [os.path.basename(made)]
  assert names(tmp_path) == []
