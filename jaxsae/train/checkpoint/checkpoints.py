"""Checkpoints with Orbax: state and data position, together or not at all.

Each has a manifest of what was saved (`manifest.py`). A checkpoint that does
not match it is never used; the next older one is. Corrupted checkpoints are
not deleted: a run that resumes moves them to `damaged/`, beside the folder
of checkpoints, because their steps will be saved again.
"""

import contextlib
import json
import logging
import os
import shutil
import textwrap
from typing import Any

import jax
import numpy as np
from etils import epath
from orbax.checkpoint import v1 as ocp

from jaxsae import pod, storage
from jaxsae.errors import RunError, StorageError, UserError, is_of_file
from jaxsae.files import entries, is_remote
from jaxsae.lm.formats.orbax_errors import (
  cause_of,
  ignore_abandoned_reads,
  ignore_tracebacks,
)
from jaxsae.lm.formats.orbax_tree import limit_retries
from jaxsae.train.checkpoint import corruption, manifest
from jaxsae.train.checkpoint.corruption import COMMITTED, Corrupted, agreed
from jaxsae.train.checkpoint.fingerprint import fingerprints
from jaxsae.train.checkpoint.members import Members
from jaxsae.train.checkpoint.saved import SavedState, from_saved, to_saved
from jaxsae.train.state import TrainState

_policies = ocp.training.preservation_policies
_Storage = ocp.options.ArrayOptions.Saving.StorageOptions
_CHUNK = 2**26  # bytes of an array that are compressed together
_LONGEST = 160  # characters of what a library says of a damaged checkpoint
_MANIFEST = "_CHECKPOINT_METADATA"  # the file in which Orbax keeps our manifest


class Checkpoints:
  """The checkpoints of one run, numbered by step.

  All processes make the same calls. Process 0 decides; a checkpoint that one
  process cannot use is used by none.

  Args:
    directory: the folder that holds them.
    keep: how many of the newest to keep. None only reads: nothing is ever
      removed or moved, so a run that is still training can be read.
    keep_every: also keeps the steps that are multiples of this.
  """

  def __init__(
    self,
    directory: str | os.PathLike[str],
    keep: int | None,
    keep_every: int | None = None,
  ):
    # Orbax wants absolute paths; gs:// and its like are that already.
    local = not is_remote(directory)
    self.directory = epath.Path(
      os.path.abspath(directory) if local else directory
    )
    self._local = local
    self._keep, self._keep_every = keep, keep_every
    self._newest: int | None = None  # last step restored or saved here
    self._orbax: ocp.training.Checkpointer | None = None  # opened to save
    self._saving: ocp.AsyncResponse | None = None  # the save under way

  @property
  def latest(self) -> int | None:
    """The step of the newest checkpoint, intact or not."""
    return max(self._steps(), default=None)

  def prepare(self, state: TrainState) -> None:
    """Prepares to save states like this one.

    Removes what a crash left half-written, and compiles what saving needs.
    """
    fingerprints(to_saved(state))
    self._open()

  def save(self, state: TrainState, data: dict) -> None:
    """Starts a save; the state has left the device when this returns.

    Args:
      state: what to save, under its own step.
      data: the data position, as JSON.

    Raises:
      UserError: the disk has no room for it; older checkpoints stay.
      RunError: this checkpoint or the one before could not be written.
      StorageError: the store they are in does not answer.
    """
    step = int(state.step)
    if step == self._newest:
      return
    checkpointer = self._open()
    self.wait()
    self._check_room(state)
    self._newest = step
    saved = to_saved(state)
    with self._failure_named():
      # Without force, Orbax skips a save, silently, while another is written.
      self._saving = checkpointer.save_async(
        step, saved, force=True, custom_metadata=manifest.write(saved, data)
      )

  def restore(self, like: TrainState) -> tuple[TrainState, dict]:
    """Restores the newest intact state, with shapes and shardings of `like`.

    Prints on stderr which checkpoints are corrupted, and how.

    Returns:
      The state and its data position.

    Raises:
      UserError: no checkpoint is intact; the message says why for each.
    """
    wanted = to_saved(like)
    contents, corrupted = self._manifests(wanted)
    for step, content in contents.items():
      try:
        state = self._load(step, content, wanted)
      except Corrupted as error:
        corrupted[step] = str(error)
      else:
        self._newest = step
        corruption.warn(self.directory, corrupted, step)
        if self._keep is not None:
          corruption.put_aside(self.directory, corrupted)
          self._open()
        return from_saved(state), content["data"]
    raise corruption.refusal(self.directory, corrupted)

  def members(self) -> Members:
    """Opens the autoencoders of the newest checkpoint with an intact manifest.

    Prints on stderr which checkpoints are newer, and why they are not used.

    Raises:
      UserError: no manifest is intact; the message says why for each.
    """
    contents, corrupted = self._manifests()
    if not contents:
      raise corruption.refusal(self.directory, corrupted)
    step, content = next(iter(contents.items()))
    corruption.warn(self.directory, corrupted, step)
    return Members(
      step=step,
      folder=self.directory / str(step),
      shapes=manifest.shapes(content),
      prints={path: seen for path, (_, seen) in content["arrays"].items()},
      row_prints=content.get("members"),
    )

  def wait(self) -> None:
    """Waits until everything is on disk.

    Raises:
      RunError: the checkpoint could not be written.
    """
    if self._saving is not None:
      saving, self._saving = self._saving, None
      with self._failure_named():
        self._open().wait()
        saving.result()  # ends the thread that holds the result

  def close(self) -> None:
    """Waits until everything is on disk, then ends the writing threads."""
    self.wait()
    if self._orbax is not None:
      with self._failure_named():
        self._orbax.close()

  def _steps(self) -> list[int]:
    """The steps on disk, newest first, as process 0 sees them."""

    def find():
      paths = filter(self._is_checkpoint, entries(self.directory))
      found = [int(path.name) for path in paths]
      return sorted(found, reverse=True)

    return pod.on_leader(find)

  def _is_checkpoint(self, path: epath.Path) -> bool:
    """Returns whether a path is a checkpoint whose save has ended."""
    if not path.name.isdecimal() or not path.is_dir():
      return False
    return self._local or (path / COMMITTED).exists()

  def _manifests(
    self, like: SavedState | None = None
  ) -> tuple[dict[int, dict], dict[int, str]]:
    """Manifests by step, newest first, and why the others are corrupted.

    Args:
      like: a state of the types that a checkpoint must have, if known.
    """
    contents, corrupted = {}, {}
    for step in self._steps():
      try:
        contents[step] = agreed(lambda s=step: self._manifest(s, like))
      except Corrupted as error:
        corrupted[step] = str(error)
    return contents, corrupted

  def _manifest(self, step: int, like: SavedState | None) -> dict:
    text = _manifest_text(self.directory / str(step) / _MANIFEST)
    try:
      kept = json.loads(text)
      content = manifest.read(kept["custom_metadata"], step)
    except (ValueError, TypeError, KeyError) as error:
      raise Corrupted(manifest.NONE) from error
    if like is not None:
      manifest.check_types(content, like)
    return content

  def _load(self, step: int, content: dict, like: SavedState) -> SavedState:
    state = agreed(lambda: _read(self.directory / str(step), like))
    manifest.check_values(content, state)
    return state

  def _open(self) -> ocp.training.Checkpointer:
    """Returns Orbax's checkpointer, which lists the folder when it opens."""
    if self._orbax is None:
      ignore_tracebacks()
      limit_retries()
      policies: list = [_policies.LatestN(self._keep)]
      if self._keep_every is not None:
        policies.append(_policies.EveryNSteps(self._keep_every))
      context = ocp.Context()
      context.array.saving.scoped_storage_options_creator = _chunk_by_member
      self._orbax = ocp.training.Checkpointer(
        self.directory,
        context=context,
        # Orbax's own policies are not of the type that it declares for them.
        preservation_policy=_policies.AnyPreservationPolicy(policies),  # pyright: ignore[reportArgumentType]
        cleanup_tmp_directories=True,
      )
    return self._orbax

  @contextlib.contextmanager
  def _failure_named(self):
    """Turns any failure to write a checkpoint into one sentence."""
    try:
      yield
    except Exception as error:
      if not self._local and (failure := storage.failure_of(error)):
        raise failure from error
      raise RunError(
        f"checkpoint {self._newest} could not be written in {self.directory}"
        f" ({cause_of(error)}). Older checkpoints are intact; free space or"
        " fix permissions there and run the same command again to resume from"
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


def _chunk_by_member(key: Any, value: Any) -> _Storage | None:
  """Tells Orbax to keep each row of an array [S, …] in chunks of its own.

  So `members.py` can read one autoencoder without the others. Chunks that are
  small take little memory while they are unpacked.
  """
  del key
  if np.ndim(value) < 2:
    return None
  return _Storage(shard_axes=(0,), chunk_byte_size=_CHUNK)


def _manifest_text(path: epath.Path) -> str:
  """Reads a manifest.

  Raises:
    Corrupted: the file is missing, or is not text.
    UserError: it may not be read.
    StorageError: the disk failed, which says nothing about the checkpoint.
  """
  try:
    return path.read_text()
  except PermissionError as error:
    raise UserError(
      f"{path} cannot be read ({error.strerror}); make it readable."
    ) from error
  except UnicodeDecodeError as error:
    raise Corrupted(manifest.NONE) from error
  except OSError as error:
    if is_of_file(error):
      raise Corrupted(manifest.NONE) from error
    raise StorageError(
      f"{path} cannot be read ({error.strerror}); run the same command again."
    ) from error


def _read(path: epath.Path, like: SavedState) -> SavedState:
  """Loads a checkpoint with Orbax, in this process alone.

  With Orbax's usual barriers all would wait for one that found corruption.
  """
  index = jax.process_index()
  context = ocp.Context()
  context.multiprocessing.primary_host = index
  context.multiprocessing.active_processes = {index}
  context.multiprocessing.barrier_sync_key_prefix = f"process_{index}"
  ignore_abandoned_reads()
  limit_retries()
  try:
    with context, _quiet():
      return ocp.load(path, like)
  except Exception as error:
    if is_remote(path) and (failure := storage.failure_of(error)):
      raise failure from error
    cause = textwrap.shorten(str(cause_of(error)), _LONGEST, placeholder=" …")
    raise Corrupted(f"it cannot be read ({cause})") from error


@contextlib.contextmanager
def _quiet():
  """Turns off logging, because Orbax also raises the failures that it logs."""
  before = logging.root.manager.disable
  logging.disable(logging.CRITICAL)
  try:
    yield
  finally:
    logging.disable(before)
