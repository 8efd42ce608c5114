"""Layouts of official checkpoints: which array holds which parameter.

DeepMind and its library save the same parameters in four ways, told apart by
the keys of their arrays:

* nested, as in the model: `layer_0`, `mlp`, `linear`;
* flat, as released: `transformer/layer_0/mlp/linear`, `w`;
* stacked: `transformer/stacked_layers/attention_type_1/mlp/linear`, `w`, where
  the leading axis counts the repetitions of the pattern of attention;
* Kauldron's, which has other parts of a training run beside `params`.

Source of the names: `gemma/gm/ckpts` (google-deepmind/gemma, 3.3.0).
"""

import dataclasses
import re
from collections.abc import Iterable

from jax.typing import DTypeLike

from jaxsae.errors import UserError
from jaxsae.lm.sharding import Path

_WRAPPERS = ("params", "transformer")
# The vision parts of Gemma 3; only the text model is read.
_VISION = {
  "SigLiPFromPatches_0",
  "vision_encoder",
  "mm_input_projection",
  "mm_soft_embedding_norm",
}
_STACKED = re.compile(r"stacked_layers/attention_type_(\d{1,3})/(.+)")
_MOST_LAYERS = 10_000  # a file with more is refused as damaged


@dataclasses.dataclass(frozen=True)
class Stored:
  """One array of a checkpoint.

  Attributes:
    keys: its path in the checkpoint's own tree.
    shape: the shape of the array.
    dtype: the dtype of the array.
    read_bytes: bytes of memory that reading it takes.
    paths: official paths of the parameters in it: one, or several along its
      leading axis.
    stacked: whether the leading axis counts parameters.
  """

  keys: Path
  shape: tuple[int, ...]
  dtype: DTypeLike
  read_bytes: int
  paths: tuple[Path, ...] = ()
  stacked: bool = False

  @property
  def part_shape(self) -> tuple[int, ...]:
    """The shape of each parameter."""
    return self.shape[1:] if self.stacked else self.shape


def of_text_model(arrays: Iterable[Stored], where: str) -> list[Stored]:
  """Returns the arrays of the text model, with their official paths.

  Args:
    arrays: all arrays of a checkpoint, without paths.
    where: the checkpoint's name, for messages.

  Raises:
    UserError: two arrays hold the same parameter, or an array that should be
      a stack of layers is not.
  """
  arrays = list(arrays)
  if any(x.keys[0] == "params" for x in arrays):
    arrays = [x for x in arrays if x.keys[0] == "params"]
  names = {x.keys: _name(x.keys) for x in arrays}
  kinds = [_STACKED.fullmatch(name) for name in names.values()]
  period = max((int(match[1]) + 1 for match in kinds if match), default=0)
  found = [
    _with_paths(x, names[x.keys], period, where)
    for x in arrays
    if not _VISION & set(names[x.keys].split("/"))
  ]
  _check_once(found, where)
  return found


def _name(keys: Path) -> str:
  """Returns the official path of an array, joined by slashes."""
  parts = "/".join(keys).split("/")
  while parts[0] in _WRAPPERS:
    parts = parts[1:] or [""]
  if parts[-1] == "w" and parts[-3:-2] == ["mlp"]:
    parts = parts[:-1]
  return "/".join(parts)


def _with_paths(x: Stored, name: str, period: int, where: str) -> Stored:
  match = _STACKED.fullmatch(name)
  if match is None:
    return dataclasses.replace(x, paths=(tuple(name.split("/")),))
  if not x.shape or x.shape[0] * period > _MOST_LAYERS:
    raise UserError(
      f"{'/'.join(x.keys)} in {where} has the shape {list(x.shape)}, which is"
      " not a stack of layers."
    )
  layers = [int(match[1]) + i * period for i in range(x.shape[0])]
  rest = match[2].split("/")
  paths = tuple((f"layer_{layer}", *rest) for layer in layers)
  return dataclasses.replace(x, paths=paths, stacked=True)


def _check_once(arrays: list[Stored], where: str) -> None:
  seen = {}
  for x in arrays:
    for path in x.paths:
      other = seen.setdefault(path, x)
      if other is not x:
        raise UserError(
          f"{where} has {'/'.join(path)} twice: as {'/'.join(other.keys)} and"
          f" as {'/'.join(x.keys)}."
        )
