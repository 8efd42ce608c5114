"""The event files of a run, which TensorBoard shows."""

import contextlib
import tempfile

from etils import epath

from jaxsae.files import is_remote
from jaxsae.train.monitor.uploads import Uploads

FOLDER = "tensorboard"
PIECE = 4 << 20  # bytes after which a new file begins in a store


class Board:
  """Writes scalars for TensorBoard.

  In a store, the newest event file is written here and copied whole with each
  flush; when it has `PIECE` bytes, the next begins.

  Args:
    run: the run's folder.
    step: the step after which the run goes on; later scalars are not shown.
    uploads: writes to a store.
  """

  def __init__(self, run: epath.Path, step: int, uploads: Uploads):
    self._folder, self._uploads = run / FOLDER, uploads
    self._scratch: epath.Path | None = None
    self._ending = contextlib.ExitStack()
    if is_remote(run):
      made = tempfile.TemporaryDirectory(prefix="jaxsae-tensorboard-")
      self._scratch = epath.Path(self._ending.enter_context(made))
    self._count, self._changed = 0, False
    self._open(purge_step=step + 1)

  def add(self, name: str, value: float, step: int) -> None:
    """Adds a value to a curve."""
    self._writer.add_scalar(name, value, step)
    self._changed = True

  def flush(self) -> None:
    """In a store, starts to write what was added; elsewhere does nothing."""
    if self._scratch is None or not self._changed:
      return
    self._changed = False
    self._writer.flush()
    (file,) = self._scratch.iterdir()
    content = file.read_bytes()
    self._uploads.start(self._folder / file.name, content)
    if len(content) >= PIECE:
      self._writer.close()
      file.unlink()
      self._open()

  def close(self) -> None:
    self._writer.close()
    self._ending.close()

  def _open(self, purge_step: int | None = None) -> None:
    # It takes as long to import as all the rest, and brings PyTorch if it can.
    from tensorboardX import SummaryWriter

    self._count += 1
    self._writer = SummaryWriter(
      str(self._scratch or self._folder),
      purge_step=purge_step,
      write_to_disk=True,
      # In a store, several may begin within the second that names a file.
      filename_suffix=f".{self._count:04}" if self._scratch else "",
    )
