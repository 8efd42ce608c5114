"""Opening a finished run: its config, language model and autoencoders."""

import contextlib
import dataclasses
import functools
import os
from collections.abc import Mapping, Sequence

import jax
from etils import epath
from jax.sharding import Mesh, SingleDeviceSharding

from jaxsae import data
from jaxsae import mesh as meshes
from jaxsae.errors import RunError, UserError, did_you_mean, first_few
from jaxsae.files import given_path
from jaxsae.lm import Lm, Taps, load_lm
from jaxsae.origin import Origin, mark
from jaxsae.runs.settings import RunSettings
from jaxsae.sae import Sae
from jaxsae.train import state as states
from jaxsae.train.checkpoint import lm_check
from jaxsae.train.checkpoint.checkpoints import Checkpoints
from jaxsae.train.checkpoint.corruption import Corrupted, agreed
from jaxsae.train.checkpoint.members import Members
from jaxsae.train.checkpoint.saved import (
  SavedStack,
  to_saved_stack,
  trained,
)
from jaxsae.train.config.run import TrainConfig
from jaxsae.train.config.sweep import Stack
from jaxsae.train.placement.layout import member_sharding
from jaxsae.train.process import workdir


@dataclasses.dataclass(frozen=True)
class Run:
  """A run opened from its folder, with its newest checkpoint.

  What is large is loaded when it is first asked for.

  Attributes:
    path: the run's folder.
    config: the configuration that the run was started with, and the settings
      that it was opened with.
    names: the names of the autoencoders that are selected.
    members: the autoencoders in the checkpoint.
    text: a file or folder of other text to judge the autoencoders on; empty:
      what the run held out of its own.
  """

  path: epath.Path
  config: TrainConfig
  names: tuple[str, ...]
  members: Members
  text: str = ""

  def __repr__(self) -> str:
    """Names the run, its step and its autoencoders, in one line."""
    names = first_few(self.names)
    return (
      f"Run({str(self.path)!r}, step {self.step}, {len(self.names)}"
      f" autoencoders: {names})"
    )

  @property
  def step(self) -> int:
    """The step of the checkpoint."""
    return self.members.step

  @property
  def taps(self) -> dict[str, Taps]:
    """Name → the sites that an autoencoder reads and writes."""
    return {name: self._places[name].stack.taps for name in self.names}

  @property
  def widths(self) -> dict[str, int]:
    """Name → the number of latents of an autoencoder."""
    return {name: self._places[name].stack.width for name in self.names}

  @property
  def targets(self) -> dict[str, float | None]:
    """Name → the target L0 of an autoencoder's training, or None."""
    places = {name: self._places[name] for name in self.names}
    return {
      name: place.stack.members[place.indices[1]].target
      for name, place in places.items()
    }

  @functools.cached_property
  def mesh(self) -> Mesh:
    """The mesh of devices."""
    return meshes.make(self.config.mesh)

  @functools.cached_property
  def lm(self) -> Lm:
    """The language model, on the mesh.

    Raises:
      UserError: it is not the one that the run was trained on.
    """
    config = self.config
    lm = load_lm(config.lm, mesh=self.mesh, fsdp=config.fsdp)
    lm_check.check(self.path, lm)
    return lm.excluding(config.data.exclude_tokens)

  @functools.cached_property
  def saes(self) -> Mapping[str, tuple[Taps, Sae]]:
    """Name → taps, and autoencoder of raw activations, all on the mesh.

    All processes must ask for it together.
    """
    return {name: self._read_on_mesh(name) for name in self.names}

  def read_on_host(self, name: str) -> tuple[Taps, Sae]:
    """Reads one autoencoder into this host's memory; keeps no other.

    It is read anew each time. Waits for no other process.
    """
    place, host = self._places[name], jax.local_devices(backend="cpu")[0]
    one = SingleDeviceSharding(host)
    like = _like(place, jax.tree.map(lambda x: one, place.like))
    with jax.default_device(host), self._corruption_named():
      saved = self.members.load(*place.indices, like)
      self.members.check(*place.indices, saved)
      return place.stack.taps, jax.device_get(_folded(place, saved))

  def _read_on_mesh(self, name: str) -> tuple[Taps, Sae]:
    place = self._places[name]
    like = _like(place, member_sharding(place.like, self.mesh))
    with self._corruption_named():
      saved = agreed(lambda: self.members.load(*place.indices, like))
      self.members.check(*place.indices, saved)
    taps, sae = place.stack.taps, _folded(place, saved)
    origin = Origin(f"{name} of {self.path}", str(taps), self.config.lm)
    return taps, mark(sae, origin)

  @functools.cached_property
  def _places(self) -> "Mapping[str, _Place]":
    """Name → the position of an autoencoder in the checkpoint."""
    found = {}
    for index, stack in enumerate(self.config.stacks):
      like = _stack_like(self.members, index, stack)
      for member, name in enumerate(stack.names):
        found[name] = _Place(stack, (index, member), like)
    return found

  @contextlib.contextmanager
  def _corruption_named(self):
    """Turns corruption into a sentence that says how to go on."""
    try:
      yield
    except Corrupted as error:
      folder = self.members.folder
      raise RunError(
        f"checkpoint {self.step} in {folder.parent} is corrupted: {error}. Move"
        f" {folder} away to use the checkpoint before it, or run the experiment"
        " again, which resumes from that one."
      ) from error


@dataclasses.dataclass(frozen=True)
class _Place:
  """The position of one autoencoder in a checkpoint.

  Attributes:
    stack: the configuration of its stack.
    indices: the index of the stack, and its own in the stack.
    like: the shapes of the stack's arrays, [S, …].
  """

  stack: Stack
  indices: tuple[int, int]
  like: SavedStack


def open_run(
  path: str | os.PathLike[str],
  settings: RunSettings | None = None,
  only: Sequence[str] = (),
  text: str = "",
) -> Run:
  """Opens a run at its newest checkpoint.

  Args:
    path: the run's folder.
    settings: where its data is now, how it is evaluated, and the mesh; by
      default the run's own, on all devices that there are.
    only: names of autoencoders, to leave out all others; by default all.
    text: other text to judge them on; by default what the run held out.

  Raises:
    UserError: the folder has no checkpoint yet, the run has no autoencoder of
      such a name, or there is no such text.
  """
  folder = given_path(path)
  config = workdir.read_config(folder)
  if text:
    data.check_source(text)
  checkpoints = Checkpoints(folder / "checkpoints", keep=None)
  if checkpoints.latest is None:
    raise UserError(
      f"{folder} has no checkpoint; train it first, and in a new folder if its"
      " checkpoints were removed."
    )
  settings = settings or RunSettings.of(config)
  return Run(
    path=folder,
    config=settings.applied(config),
    names=_selected(folder, config, only),
    members=checkpoints.members(),
    text=text,
  )


def _selected(
  folder: epath.Path, config: TrainConfig, only: Sequence[str]
) -> tuple[str, ...]:
  every = [name for stack in config.stacks for name in stack.names]
  for name in only:
    if name not in every:
      guess = did_you_mean(name, every)
      raise UserError(
        f"--only={name} is not one of the {len(every)} autoencoders of"
        f" {folder}; {guess or f'they are named like {every[0]}'}"
      )
  return tuple(name for name in every if not only or name in only)


def _stack_like(members: Members, index: int, stack: Stack) -> SavedStack:
  """Returns the shapes of what is read of a stack, as the checkpoint has it."""
  shape = lambda name: members.shapes[f".stacks[{index}].sae.{name}"]
  made = states.abstract_stack(stack, shape("w_enc")[1], shape("w_dec")[2])
  return trained(to_saved_stack(made))


def _like(place: _Place, layout: SavedStack) -> SavedStack:
  """Returns the shapes and shardings of one member's arrays."""
  return jax.tree.map(
    lambda x, of: jax.ShapeDtypeStruct(x.shape[1:], x.dtype, sharding=of),
    place.like,
    layout,
  )


def _folded(place: _Place, saved: SavedStack) -> Sae:
  stack, member = place.stack, place.indices[1]
  return states.fold_member(
    stack, member, saved.sae, saved.scale, saved.target_scale
  )
