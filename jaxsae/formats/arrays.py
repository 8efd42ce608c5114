"""Checks of arrays that may not be an autoencoder, the same in every format.

Shapes: D_in width of the site read, D of the one written, F latents.
"""

import math
from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import ArrayLike

from jaxsae import process
from jaxsae.errors import UserError
from jaxsae.formats.format import Path

Arrays = dict[str, np.ndarray]

# Our field → the array's name in files and messages.
NAMES = {
  "w_enc": "W_enc",  # [D_in, F]
  "b_enc": "b_enc",  # [F]
  "w_dec": "W_dec",  # [F, D]
  "b_dec": "b_dec",  # [D]
  "threshold": "threshold",  # [F]
}
SKIP = "W_skip"  # [D_in, D], of some transcoders

# A number that float32 cannot hold becomes infinite, and is refused as such.
overflowing = np.errstate(over="ignore", invalid="ignore")


def check(
  arrays: Mapping[str, np.ndarray], path: Path, skip: str = SKIP
) -> None:
  """Checks the shapes and values of an autoencoder's arrays.

  Args:
    arrays: those of `NAMES`, perhaps without threshold, and a transcoder's
      skip if it has one.
    path: the file, for messages.
    skip: the name of the skip [D_in, D].

  Raises:
    UserError: names the array that is wrong.
  """
  whole: Arrays = {"threshold": np.zeros(arrays["b_enc"].shape), **arrays}
  check_shapes({name: whole[name].shape for name in NAMES.values()}, path)
  wanted = (whole["W_enc"].shape[0], whole["W_dec"].shape[1])
  if skip in whole and whole[skip].shape != wanted:
    raise UserError(
      f"{skip} in {path} has shape {whole[skip].shape}, not {wanted}."
    )
  check_values(whole, path)


def check_shapes(shapes: Mapping[str, tuple[int, ...]], path: Path) -> None:
  """Checks that all shapes agree with W_enc [D_in, F] and W_dec [F, D].

  Args:
    shapes: of `W_enc`, `b_enc`, `W_dec`, `b_dec` and `threshold`.
    path: the file, for messages.

  Raises:
    UserError: names the array that has a wrong shape.
  """
  for name, axes in (
    ("W_enc", "(site width, number of latents)"),
    ("W_dec", "(number of latents, site width)"),
  ):
    if len(shapes[name]) != 2 or min(shapes[name]) < 1:
      raise UserError(
        f"{name} in {path} has shape {shapes[name]}; one autoencoder's is"
        f" {axes}."
      )
  (_, f), (_, d) = w_enc, w_dec = shapes["W_enc"], shapes["W_dec"]
  wanted = {"W_dec": (f, d), "b_enc": (f,), "b_dec": (d,), "threshold": (f,)}
  for name, shape in wanted.items():
    if shapes[name] != shape:
      raise UserError(
        f"{name} in {path} has shape {shapes[name]}; W_enc of shape {w_enc} and"
        f" W_dec of shape {w_dec} need {shape}."
      )


def check_one_width(w_enc: ArrayLike, w_dec: ArrayLike, path: Path) -> None:
  """Raises UserError unless as many numbers are written as are read.

  Args:
    w_enc: [D_in, F].
    w_dec: [F, D].
    path: the file, for messages.
  """
  read, written = np.shape(w_enc), np.shape(w_dec)
  if read[:1] != written[-1:]:
    raise UserError(
      f"W_enc in {path} has shape {read} and W_dec {written}; what is written"
      " must be as wide as what is read."
    )


def check_memory(shapes: Iterable[tuple[int, ...]], what: Path) -> None:
  """Raises UserError if this machine has no room for arrays of these shapes.

  They are there as the file has them, as float32, and as JAX has them.
  """
  needed = 3 * sum(4 * math.prod(shape) for shape in shapes)
  there = process.memory_limit()
  if needed > there:
    raise UserError(
      f"{what} needs {needed / 1e9:.1f} GB of memory to be read, and"
      f" {there / 1e9:.1f} GB are there; use a machine with more."
    )


def check_values(arrays: Mapping[str, np.ndarray], path: Path) -> None:
  """Checks that all values are finite and no `threshold` is negative.

  Raises:
    UserError: names the array that has a wrong value.
  """
  for name, array in arrays.items():
    if not np.isfinite(array).all():
      raise UserError(
        f"{name} in {path} has values that are not finite; the autoencoder"
        " is broken; use another one."
      )
  if (arrays["threshold"] < 0).any():
    raise UserError(
      f"threshold in {path} has negative values; JumpReLU's are 0 or more."
    )


def reason(error: Exception) -> str:
  """Returns what an exception says in one short line.

  What a library says may quote the file, which may be of any length.
  """
  return " ".join(str(error).split())[:200] or type(error).__name__
