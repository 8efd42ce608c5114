"""Opening a finished run: its config, language model and autoencoders."""

import dataclasses
import math
import os
from collections.abc import Iterator, Mapping

import jax
from etils import epath

from jaxsae import mesh as meshes
from jaxsae.errors import UserError
from jaxsae.lm import Lm, Site, load_lm
from jaxsae.mesh import MeshConfig
from jaxsae.sae import Sae
from jaxsae.train import state as states
from jaxsae.train.checkpoint.checkpoints import Checkpoints
from jaxsae.train.config.run import TrainConfig
from jaxsae.train.process import workdir
from jaxsae.train.state import TrainState, abstract_state


@dataclasses.dataclass(frozen=True)
class Run:
  """A run opened from its folder, with its newest checkpoint.

  Attributes:
    path: the run's folder.
    config: the configuration that the run was started with.
    lm: the language model.
    step: the step of the newest checkpoint.
    saes: name → site, and autoencoder of raw activations.
    targets: name → the target L0 of its training, or None.
  """

  path: epath.Path
  config: TrainConfig
  lm: Lm
  step: int
  saes: Mapping[str, tuple[Site, Sae]]
  targets: Mapping[str, float | None]


def open_run(path: str | os.PathLike[str]) -> Run:
  """Opens a run at its newest checkpoint, on all devices of this machine.

  Raises:
    UserError: the folder has no checkpoint yet.
  """
  folder = epath.Path(path)
  config = workdir.read_config(folder)
  checkpoints = Checkpoints(folder / "checkpoints", keep=None)
  if checkpoints.latest is None:
    raise UserError(f"{folder} has no checkpoint yet; train it first.")
  # The `model` axis of training, as far as this machine has the devices.
  model = math.gcd(config.mesh.model, jax.device_count())
  mesh = meshes.make(MeshConfig(model=model))
  lm = load_lm(config.lm, mesh=mesh, fsdp=config.fsdp)
  state, _ = checkpoints.restore(abstract_state(config, lm.config, mesh))
  checkpoints.close()
  saes = dict(_folded(config, state))
  return Run(
    path=folder,
    config=config,
    lm=lm,
    step=int(state.step),
    saes=saes,
    targets={
      name: member.target
      for stack in config.stacks
      for name, member in zip(stack.names, stack.members, strict=True)
    },
  )


def _folded(
  config: TrainConfig, state: TrainState
) -> Iterator[tuple[str, tuple[Site, Sae]]]:
  for stack, trained in zip(config.stacks, state.stacks, strict=True):
    for name, sae in states.folded(stack, trained).items():
      yield name, (stack.site, sae)
