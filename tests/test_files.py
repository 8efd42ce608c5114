"""Files appear whole, and those of killed processes are removed."""

import os

import pytest

from jaxsae.files import (
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
  assert before == [f".a.{worker.pid}.partial", "b.partial"]
  remove_leftovers(tmp_path)
  assert names(tmp_path) == before
  worker.process.kill()
  worker.process.wait()
  assert [path.name for path in unfinished(tmp_path)] == before[:1]
  remove_leftovers(tmp_path)
  assert names(tmp_path) == []


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
