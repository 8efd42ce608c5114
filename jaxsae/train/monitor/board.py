"""The event files of a run, which TensorBoard shows."""

import contextlib
import tempfile
import time
from typing import Any

from etils import epath

from jaxsae.files import is_remote
from jaxsae.train.monitor.uploads import Uploads

FOLDER = "tensorboard"
PIECE = 4 << 20  # bytes after which a new file begins in a store


class Board:
  """Writes curves for TensorBoard.

  In a store, the newest event file is written here and copied whole with each
  flush; when it has `PIECE` bytes, the next begins.

  Args:
    run: the run's folder.
    step: the step after which the run goes on; what was beyond it is hidden.
    uploads: writes to a store.
  """

  def __init__(self, run: epath.Path, step: int, uploads: Uploads):
    # It takes as long to import as all the rest, and brings PyTorch if it can.
    # Its SummaryWriter has a thread, and a flush that doesn't wait for it.
    import tensorboardX.event_file_writer
    import tensorboardX.summary
    from tensorboardX.proto import event_pb2

    messages: Any = event_pb2  # protobuf makes its classes on import
    self._make_writer = tensorboardX.event_file_writer.EventsWriter
    self._make_event = messages.Event
    self._summary = tensorboardX.summary.scalar
    self._folder, self._uploads = run / FOLDER, uploads
    self._here, self._is_copied = self._folder, is_remote(run)
    self._ending = contextlib.ExitStack()
    if self._is_copied:
      made = tempfile.TemporaryDirectory(prefix="jaxsae-tensorboard-")
      self._here = epath.Path(self._ending.enter_context(made))
    self._here.mkdir(parents=True, exist_ok=True)
    self._count, self._changed = 0, False
    self._open()
    start = messages.SessionLog(status=messages.SessionLog.START)
    self._write(step + 1, session_log=start)

  def add(self, name: str, value: float, step: int) -> None:
    """Adds a value to a curve."""
    self._write(step, summary=self._summary(name, value))
    self._changed = True

  def flush(self) -> None:
    """Writes what was added; in a store, starts to."""
    self._writer.flush()
    if not self._is_copied or not self._changed:
      return
    self._changed = False
    (file,) = self._here.iterdir()
    content = file.read_bytes()
    self._uploads.start(self._folder / file.name, content)
    if len(content) >= PIECE:
      self._writer.close()
      file.unlink()
      self._open()

  def close(self) -> None:
    self._writer.close()
    self._ending.close()

  def _open(self) -> None:
    # Several may begin within the second that names a file.
    self._count += 1
    suffix = f".{self._count:04}" if self._is_copied else ""
    self._writer = self._make_writer(str(self._here / "events"), suffix)

  def _write(self, step: int, **what: Any) -> None:
    event = self._make_event(wall_time=time.time(), step=step, **what)
    self._writer.write_event(event)
