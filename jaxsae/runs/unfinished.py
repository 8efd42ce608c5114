"""An evaluation that was stopped goes on where it was.

While a run is evaluated, `eval/STEP.unfinished/` holds the sums so far, one
file for each part of the evaluation. They are written whenever the figures of
an autoencoder are finished, every minute, and when the process is asked to
stop. An evaluation goes on with them only if it is the same one, so its results
equal those of one that was never stopped, bit for bit.
"""

import hashlib
import io
import json
import sys
import time
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from etils import epath

from jaxsae import pod
from jaxsae.evals import PARTS, Figures, Keeper
from jaxsae.files import whole_file
from jaxsae.train.process.shutdown import ShutdownSignal, resume_command

_SECONDS = 60.0  # between two writes, if no figures are finished meanwhile


class Unfinished(Keeper):
  """Keeps an evaluation's sums in a folder, and stops it when asked to.

  All processes make it, at the same time.

  Args:
    folder: the folder; all processes of a pod see it.
    identity: everything that the results depend on, as JSON.
    stop: is asked after every forward pass whether to stop.
    first: the number of steps after which this evaluation begins, for `stop`.
  """

  def __init__(
    self,
    folder: epath.Path,
    identity: Mapping[str, Any],
    stop: ShutdownSignal,
    first: int,
  ):
    self._folder, self._stop, self._number = folder, stop, first
    text = json.dumps(identity, sort_keys=True)
    self._identity = hashlib.sha256(text.encode()).hexdigest()
    self._written = time.monotonic()
    self._found = {part: self._read(part) for part in PARTS}
    self._agree()

  def recall(self, part: str) -> Figures | None:
    """Returns the sums that an evaluation of the same identity left."""
    return self._found[part]

  def offer(self, part: str, sums: Callable[[], Figures], done: bool) -> None:
    """Writes the sums if it is time to; ends the process if it was asked to."""
    stops = self._stop.asked(self._number)
    self._number += 1
    if stops:
      pod.on_leader(lambda: self._write(part, sums()))
      self._exit()
    elif pod.is_leader() and (done or self._is_late()):
      self._write(part, sums())

  def remove(self) -> None:
    """Removes the folder: the evaluation is finished."""
    if self._folder.exists():
      self._folder.rmtree()

  def _is_late(self) -> bool:
    return time.monotonic() - self._written > _SECONDS

  def _file(self, part: str) -> epath.Path:
    return self._folder / f"{part}.npz"

  def _write(self, part: str, sums: Figures) -> None:
    content = io.BytesIO()
    # A name may be anything, also that of a parameter of `savez`.
    named: dict[str, Any] = {f"of {k}": array for k, array in sums.items()}
    np.savez(content, identity=np.array(self._identity), **named)
    with whole_file(self._file(part)) as partial:
      partial.write_bytes(content.getvalue())
    self._written = time.monotonic()

  def _read(self, part: str) -> Figures | None:
    """Returns the sums in a file; None unless they are of this evaluation."""
    file = self._file(part)
    if not file.exists():
      return None
    try:
      found = dict(np.load(io.BytesIO(file.read_bytes()), allow_pickle=False))
    except (ValueError, EOFError, zipfile.BadZipFile):
      return None  # it was damaged, and costs only time
    if found.pop("identity", None) != self._identity:
      return None
    return {name.removeprefix("of "): array for name, array in found.items()}

  def _agree(self) -> None:
    """Begins anew unless all processes read the same."""
    own = hashlib.sha256()
    for found in self._found.values():
      for name, array in sorted((found or {}).items()):
        own.update(name.encode() + array.tobytes())
    if len(set(pod.gather_texts(own.hexdigest()))) > 1:
      self._found = dict.fromkeys(self._found)

  def _exit(self) -> None:
    if pod.is_leader():
      print(
        f"stopped while evaluating; what was measured is in {self._folder}; to"
        f" go on:\n  {resume_command()}",
        file=sys.stderr,
      )
    sys.exit(self._stop.status)
