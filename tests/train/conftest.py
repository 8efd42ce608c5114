"""A finished run, for tests that damage, copy or continue it."""

import dataclasses
import pathlib
import shutil

import pytest

from jaxsae import mesh as meshes
from jaxsae.lm.weights import read_sizes
from jaxsae.train.checkpoint.checkpoints import Checkpoints
from jaxsae.train.config.run import TrainConfig
from jaxsae.train.loop import train
from jaxsae.train.state import TrainState, abstract_state
from tests.train.toys import small


@dataclasses.dataclass(frozen=True)
class Made:
  """A finished run with all its checkpoints; copy it before changing it.

  Attributes:
    config: its own.
    like: shapes and shardings of its state.
    states: 2, 4 and 6 → the state and data position saved then.
  """

  config: TrainConfig
  like: TrainState
  states: dict[int, tuple[TrainState, dict]]

  @property
  def path(self) -> pathlib.Path:
    return pathlib.Path(self.config.workdir)


@pytest.fixture(scope="session")
def made(tmp_path_factory, texts, lm_path) -> Made:
  config = small(tmp_path_factory.mktemp("made"), texts, lm_path)
  # Wide enough that a device's part of a member is no small change, which
  # OCDBT would keep, compressed and with a checksum, among its names.
  sweep = dataclasses.replace(config.sae, widths=(128,))
  config = dataclasses.replace(config, sae=sweep)
  train(config)
  mesh = meshes.make(config.mesh)
  like = abstract_state(config, read_sizes(config.lm), mesh)
  states = {}
  for step in (2, 4, 6):
    alone = tmp_path_factory.mktemp("alone")
    folder = pathlib.Path(config.workdir, "checkpoints", str(step))
    shutil.copytree(folder, alone / str(step))
    states[step] = Checkpoints(alone, keep=None).restore(like)
  assert [int(state.step) for state, _ in states.values()] == [2, 4, 6]
  return Made(config, like, states)
