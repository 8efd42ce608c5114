"""Writes to a store while the run goes on."""

import concurrent.futures

from etils import epath


class Uploads:
  """Writes files to a store, in order, in a thread of its own."""

  def __init__(self):
    self._thread = concurrent.futures.ThreadPoolExecutor(1, "uploads")
    self._pending: list[concurrent.futures.Future] = []

  def start(self, path: epath.Path, content: bytes) -> None:
    """Starts to write a file."""
    self._pending.append(self._thread.submit(path.write_bytes, content))

  def wait(self) -> None:
    """Waits until all are written.

    Raises:
      StorageError: the store does not answer.
    """
    while self._pending:
      self._pending.pop(0).result()

  def is_idle(self) -> bool:
    """Returns whether all are written, or one of them failed."""
    return all(one.done() for one in self._pending)

  def close(self) -> None:
    """Ends the thread; what it has not begun to write is left out."""
    self._thread.shutdown(wait=False, cancel_futures=True)
