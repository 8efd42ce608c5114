"""TensorBoard shows the curves of a run that was killed and resumed."""

import pytest
from etils import epath
from tensorboard.backend.event_processing import event_accumulator

from jaxsae.train.monitor import board as boards
from jaxsae.train.monitor.board import Board
from jaxsae.train.monitor.uploads import Uploads


@pytest.fixture(params=["disk", "store"])
def write(request, tmp_path, monkeypatch):
  """`write(after, until, attempt)` logs some steps and flushes every five."""
  in_store = request.param == "store"
  monkeypatch.setattr(boards, "is_remote", lambda _: in_store)
  monkeypatch.setattr(boards, "PIECE", 1000)
  (tmp_path / "tensorboard").mkdir()
  killed = []

  def some(after, until, attempt):
    uploads = Uploads()
    # What names an event file is the second and the host.
    monkeypatch.setattr("socket.gethostname", lambda: f"attempt{attempt}")
    board = Board(epath.Path(tmp_path), after, uploads)
    for step in range(after + 1, until + 1):
      board.add("loss", float(attempt), step)
      if step % 5 == 0:
        board.flush()
        uploads.wait()
    uploads.close()
    killed.append(board)

  yield some
  for board in killed:
    board.close()


def curve(folder) -> list[tuple[int, float]]:
  seen = event_accumulator.EventAccumulator(str(folder / "tensorboard"))
  seen.Reload()
  return [(x.step, x.value) for x in seen.Scalars("loss")]


def test_what_was_flushed_is_shown_once(write, tmp_path):
  write(0, 102, 1)
  assert curve(tmp_path) == [(step, 1) for step in range(1, 101)]
  write(50, 60, 2)
  assert curve(tmp_path) == [
    *((step, 1) for step in range(1, 51)),
    *((step, 2) for step in range(51, 61)),
  ]


@pytest.mark.parametrize("write", ["store"], indirect=True)
def test_files_in_a_store_are_bounded(write, tmp_path):
  write(0, 100, 1)
  sizes = [x.stat().st_size for x in (tmp_path / "tensorboard").iterdir()]
  assert len(sizes) > 3 and max(sizes) < 1500
