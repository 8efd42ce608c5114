"""Checkpoints with Orbax: state and data position, together or not at all."""

import os
import shutil

import jax
from etils import epath
from orbax.checkpoint import v1 as ocp

from jaxsae.errors import UserError
from jaxsae.train.state import TrainState

_policies = ocp.training.preservation_policies


class Checkpoints:
  """The checkpoints of one run, numbered by step.

  Args:
    directory: where they are.
    keep: so many of the newest stay. None to read alone: then nothing is ever
      removed, so a run that is still training can be looked at.
  """

  def __init__(self, directory, keep: int | None):
    # Orbax wants absolute paths; gs:// and its like are that already.
    local = "://" not in str(directory)
    self.directory = epath.Path(
      os.path.abspath(directory) if local else directory
    )
    self._local = local
    self._orbax = ocp.training.Checkpointer(
      self.directory,
      preservation_policy=_policies.LatestN(keep),
      cleanup_tmp_directories=keep is not None,
    )
    self._saving = None  # the save that was started last

  @property
  def latest(self) -> int | None:
    """The step of the newest one."""
    return None if self._orbax.latest is None else self._orbax.latest.step

  def save(self, state: TrainState, data: dict) -> None:
    """Starts to save; the copy off the device is made before this returns.

    Args:
      state: what to save, under its own step.
      data: the data position, as JSON.

    Raises:
      UserError: the disk has no room for it; older checkpoints stay.
    """
    step = int(state.step)
    if step != self.latest:
      self._check_room(state)
      self._end_save()
      # Without force, Orbax skips a save, silently, while another is written.
      self._saving = self._orbax.save_async(
        step, state, force=True, custom_metadata={"data": data}
      )

  def restore(self, like: TrainState) -> tuple[TrainState, dict]:
    """The newest state, with the shapes and shardings of `like`."""
    step = self.latest
    metadata = self._orbax.metadata(step).custom_metadata
    return self._orbax.load(step, like), metadata["data"]

  def wait(self) -> None:
    """Returns when everything is on disk."""
    self._orbax.wait()
    self._end_save()

  def close(self) -> None:
    self._orbax.close()
    self._end_save()

  def _end_save(self) -> None:
    """Waits for it; until it is asked for its result, its thread stays."""
    if self._saving is not None:
      saving, self._saving = self._saving, None
      saving.result()

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
