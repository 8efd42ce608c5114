"""Lines of metrics read the same from a disk and from a store."""

import json

import pytest
from etils import epath

from jaxsae.errors import UserError
from jaxsae.train import read_metrics
from jaxsae.train.monitor import lines
from jaxsae.train.monitor.lines import (
  FileLines,
  StoreLines,
  join,
  newest_lines,
  read_lines,
)
from jaxsae.train.monitor.uploads import Uploads

# A folder here stands for one in a store: what is written appears whole.


def line(step: int, attempt: int = 1) -> str:
  return json.dumps({"step": step, "attempt": attempt})


@pytest.fixture
def uploads():
  made = Uploads()
  yield made
  made.close()


@pytest.fixture(params=["disk", "store"])
def train(request, tmp_path, uploads):
  """`train(after, steps, attempt)` logs some steps and is then killed."""

  def some(after, steps, attempt=1):
    if request.param == "disk":
      log = FileLines(epath.Path(tmp_path), after)
    else:
      (tmp_path / "metrics").mkdir(exist_ok=True)
      log = StoreLines(epath.Path(tmp_path), after, uploads)
    for step in range(after + 1, after + steps + 1):
      log.write(step, line(step, attempt))
      if step % 2 == 0:
        log.flush()
    uploads.wait()
    log.close()

  return some


def read(folder) -> list[tuple[int, int]]:
  return [(x["step"], x["attempt"]) for x in read_metrics(folder)]


def test_a_resume_keeps_what_came_before_it_and_nothing_after(train, tmp_path):
  train(0, 6)
  train(3, 3, attempt=2)
  assert read(tmp_path) == [(1, 1), (2, 1), (3, 1), (4, 2), (5, 2), (6, 2)]
  train(0, 2, attempt=3)
  assert read(tmp_path) == [(1, 3), (2, 3)]


def test_the_newest_lines_are_found_across_attempts(train, tmp_path):
  train(0, 4)
  train(4, 2)
  train(6, 2)
  path = epath.Path(tmp_path)
  assert newest_lines(path, 5) == [line(step) for step in range(4, 9)]
  assert newest_lines(path, 50) == list(read_lines(path))


def test_pieces_are_bounded_and_become_one_file(tmp_path, uploads, monkeypatch):
  monkeypatch.setattr(lines, "PIECE", 100)
  (tmp_path / "metrics").mkdir()
  log = StoreLines(epath.Path(tmp_path), 0, uploads)
  for step in range(1, 101):
    log.write(step, line(step))
    log.flush()
  uploads.wait()
  pieces = sorted((tmp_path / "metrics").iterdir())
  assert len(pieces) == 25
  assert all(piece.stat().st_size < 200 for piece in pieces)
  before = list(read_lines(epath.Path(tmp_path)))
  join(epath.Path(tmp_path))
  text = (tmp_path / "metrics.jsonl").read_text()
  assert text.splitlines() == before == [line(n) for n in range(1, 101)]
  assert not list((tmp_path / "metrics").iterdir())


@pytest.mark.parametrize("removed", range(4))
def test_a_join_that_is_killed_loses_and_doubles_nothing(
  train, tmp_path, removed
):
  """metrics.jsonl is whole, and some of the pieces are not yet removed."""
  (tmp_path / "metrics").mkdir()
  for first in (1, 3, 5):
    piece = tmp_path / "metrics" / f"{first:012}.jsonl"
    piece.write_text(line(first) + "\n" + line(first + 1) + "\n")
  text = "".join(x + "\n" for x in read_lines(epath.Path(tmp_path)))
  (tmp_path / "metrics.jsonl").write_text(text)
  for piece in sorted((tmp_path / "metrics").iterdir())[:removed]:
    piece.unlink()
  assert read(tmp_path) == [(step, 1) for step in range(1, 7)]
  train(4, 2, attempt=2)
  assert read(tmp_path) == [*((n, 1) for n in range(1, 5)), (5, 2), (6, 2)]


def test_half_a_line_is_left_out(train, tmp_path):
  train(0, 2)
  (tmp_path / "metrics.jsonl").write_text(line(1) + "\n" + line(2)[:9])
  if not (tmp_path / "metrics").exists():
    assert read(tmp_path) == [(1, 1)]


def test_a_folder_without_metrics_is_told(tmp_path):
  with pytest.raises(UserError, match="give the folder of a run"):
    list(read_metrics(tmp_path))
