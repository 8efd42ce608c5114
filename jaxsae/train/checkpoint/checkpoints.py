"""Checkpoints with Orbax: state and data position, together or not at all.

Each carries a manifest of what was saved (`manifest.py`). One that does not
hold what its manifest says is never used: the next older one is. Nothing is
deleted for being damaged; a run that goes on puts it aside, in `damaged/` beside
the folder of checkpoints, for its step will be saved again.
"""

import contextlib
import json
import logging
import os
import shutil

import jax
from etils import epath
from orbax.checkpoint import v1 as ocp

from jaxsae import pod
from jaxsae.errors import RunError, UserError
from jaxsae.files import is_remote
from jaxsae.lm.formats.orbax_errors import (
  cause_of,
  ignore_abandoned_reads,
  ignore_tracebacks,
)
from jaxsae.train.checkpoint import corruption as damages
from jaxsae.train.checkpoint import manifest
from jaxsae.train.checkpoint.corruption import Corrupted, agreed
from jaxsae.train.checkpoint.fingerprint import fingerprints
from jaxsae.train.state import TrainState

_policies = ocp.training.preservation_policies
_RECORD = "_CHECKPOINT_METADATA"  # where Orbax puts what it is given to keep


class Checkpoints:
  """The checkpoints of one run, numbered by step.

  All processes make the same calls. Process 0 decides; a checkpoint that one
  of them can not use is used by none.

  Args:
    directory: where they are.
    keep: so many of the newest stay. None to read alone: then nothing is ever
      removed or moved, so a run that is still training can be looked at.
    keep_every: those of its multiples stay too.
  """

  def __init__(
    self, directory, keep: int | None, keep_every: int | None = None
  ):
    # Orbax wants absolute paths; gs:// and its like are that already.
    local = not is_remote(directory)
    self.directory = epath.Path(
      os.path.abspath(directory) if local else directory
    )
    self._local = local
    self._keep, self._keep_every = keep, keep_every
    self._newest: int | None = None  # that was restored or saved here
    self._orbax: ocp.training.Checkpointer | None = None  # to save with
    self._saving: ocp.AsyncResponse | None = None  # the last that was started

  @property
  def latest(self) -> int | None:
    """The step of the newest one, be it intact or not."""
    return max(self._steps(), default=None)

  def prepare(self, state: TrainState) -> None:
    """Makes ready to save states like this one.

    What a crash left half-written is removed, and nothing needs to be
    compiled later.
    """
    fingerprints(state)
    self._open()

  def save(self, state: TrainState, data: dict) -> None:
    """Starts to save; the copy off the device is made before this returns.

    Args:
      state: what to save, under its own step.
      data: the data position, as JSON.

    Raises:
      UserError: the disk has no room for it; older checkpoints stay.
      RunError: the one before could not be written, or this one can not be.
    """
    step = int(state.step)
    if step == self._newest:
      return
    self._open()
    self.wait()
    self._check_room(state)
    self._newest = step
    with self._failure_named():
      # Without force, Orbax skips a save, silently, while another is written.
      self._saving = self._orbax.save_async(
        step, state, force=True, custom_metadata=manifest.write(state, data)
      )

  def restore(self, like: TrainState) -> tuple[TrainState, dict]:
    """The newest intact state, with the shapes and shardings of `like`.

    Says on stderr which newer ones are damaged, and how.

    Returns:
      The state and its data position.

    Raises:
      UserError: no checkpoint is intact; says what is wrong with each.
    """
    contents, damaged = self._records(like)
    for step, content in contents.items():
      try:
        state = self._load(step, content, like)
      except Corrupted as error:
        damaged[step] = str(error)
      else:
        self._newest = step
        damages.tell(self.directory, damaged, step)
        if self._keep is not None:
          damages.put_aside(self.directory, damaged)
          self._open()
        return state, content["data"]
    raise damages.refusal(self.directory, damaged)

  def wait(self) -> None:
    """Returns when everything is on disk.

    Raises:
      RunError: it could not be written.
    """
    if self._saving is not None:
      saving, self._saving = self._saving, None
      with self._failure_named():
        self._orbax.wait()
        saving.result()  # until it is asked for, a thread waits to give it

  def close(self) -> None:
    """The same, and ends the threads that write."""
    self.wait()
    if self._orbax is not None:
      with self._failure_named():
        self._orbax.close()

  def _steps(self) -> list[int]:
    """The newest first, as the process that leads sees them."""

    def find():
      paths = self.directory.iterdir() if self.directory.exists() else ()
      found = [int(path.name) for path in paths if self._is_one(path)]
      return sorted(found, reverse=True)

    return pod.on_leader(find)

  def _is_one(self, path: epath.Path) -> bool:
    """Whether a path was a checkpoint, and is not one still being saved."""
    if not path.name.isdecimal() or not path.is_dir():
      return False
    # Where folders can not be renamed, Orbax writes a file to end a save.
    return self._local or (path / "commit_success.txt").exists()

  def _records(self, like) -> tuple[dict[int, dict], dict[int, str]]:
    """What each says it holds, newest first; and what is wrong with others."""
    contents, damaged = {}, {}
    for step in self._steps():
      try:
        contents[step] = agreed(lambda s=step: self._record(s, like))
      except Corrupted as error:
        damaged[step] = str(error)
    return contents, damaged

  def _record(self, step: int, like: TrainState) -> dict:
    try:
      kept = json.loads((self.directory / str(step) / _RECORD).read_text())
      content = manifest.read(kept["custom_metadata"], step)
    except (OSError, ValueError, TypeError, KeyError) as error:
      raise Corrupted("it has no manifest of what was saved") from error
    manifest.check_types(content, like)
    return content

  def _load(self, step: int, content: dict, like: TrainState) -> TrainState:
    state = agreed(lambda: _read(self.directory / str(step), like))
    manifest.check_values(content, state)
    return state

  def _open(self) -> None:
    """Opens Orbax's own list of checkpoints, which is never read again."""
    if self._orbax is None:
      ignore_tracebacks()
      policies = [_policies.LatestN(self._keep)]
      if self._keep_every is not None:
        policies.append(_policies.EveryNSteps(self._keep_every))
      self._orbax = ocp.training.Checkpointer(
        self.directory,
        preservation_policy=_policies.AnyPreservationPolicy(policies),
        cleanup_tmp_directories=True,
      )

  @contextlib.contextmanager
  def _failure_named(self):
    """Makes one sentence of whatever keeps a checkpoint from being written."""
    try:
      yield
    except Exception as error:
      raise RunError(
        f"checkpoint {self._newest} could not be written in {self.directory}"
        f" ({cause_of(error)}). Older checkpoints are intact; make room or mend"
        " permissions there and run the same command again, which goes on from"
        " the newest."
      ) from error

  def _check_room(self, state: TrainState) -> None:
    if not self._local:
      return  # object stores have no disk to fill
    needed = int(1.2 * sum(x.nbytes for x in jax.tree.leaves(state)))
    free = shutil.disk_usage(self.directory).free
    if free < needed:
      raise UserError(
        f"{self.directory} has {free / 1e6:,.0f} MB free and a checkpoint"
        f" needs {needed / 1e6:,.0f} MB; free some and run the same command"
        " again. Older checkpoints are intact."
      )


def _read(path: epath.Path, like: TrainState) -> TrainState:
  """What Orbax makes of a checkpoint, on this process alone.

  With its usual barriers all would wait for one that has found corruption.
  """
  index = jax.process_index()
  context = ocp.Context()
  context.multiprocessing.primary_host = index
  context.multiprocessing.active_processes = {index}
  context.multiprocessing.barrier_sync_key_prefix = f"process_{index}"
  ignore_abandoned_reads()
  try:
    with context, _quiet():
      return ocp.load(path, like)
  except Exception as error:
    raise Corrupted(f"it can not be read ({cause_of(error)})") from error


@contextlib.contextmanager
def _quiet():
  """Without log lines: what Orbax logs of a failure it raises too."""
  before = logging.root.manager.disable
  logging.disable(logging.CRITICAL)
  try:
    yield
  finally:
    logging.disable(before)
