"""Folds what other autoencoders do into JumpReLU on raw activations.

Arrays have the names of `arrays.NAMES`, and W_skip is [D_in, D]. Sums are made
in float64, and `to_sae` rounds once.

Shapes: D_in width of the site read, D of the one written, F latents.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxsae.errors import UserError
from jaxsae.formats.arrays import (
  NAMES,
  SKIP,
  Arrays,
  check,
  check_one_width,
  overflowing,
)
from jaxsae.formats.format import Path
from jaxsae.sae.model import Sae


@overflowing
def without_shift(arrays: Arrays, file: Path) -> Arrays:
  """Folds b_dec, which is taken from the input, into b_enc.

  (x - b_dec) W_enc + b_enc = x W_enc + (b_enc - b_dec W_enc)

  Raises:
    UserError: the input is not as wide as b_dec; names the file.
  """
  check_one_width(arrays["W_enc"], arrays["W_dec"], file)
  shift = arrays["b_dec"].astype(np.float64) @ arrays["W_enc"]
  return arrays | {"b_enc": arrays["b_enc"] - shift}


def check_gate(arrays: Arrays, file: Path) -> None:
  """Raises UserError unless the arrays of a gate have one shape."""
  shape = arrays["b_gate"].shape
  for name in ("b_mag", "r_mag"):
    if arrays[name].shape != shape:
      raise UserError(
        f"{name} in {file} has shape {arrays[name].shape}; b_gate has {shape}."
      )


@overflowing
def without_gate(arrays: Arrays) -> Arrays:
  """Writes a gate as a threshold on the magnitude.

  With z = x W_enc, a latent is exp(r_mag) z + b_mag where z + b_gate > 0. As
  exp(r_mag) > 0, that is where the magnitude is above
  b_mag - exp(r_mag) b_gate.

  Args:
    arrays: those of `NAMES` but b_enc and threshold; and r_mag, b_mag and
      b_gate, [F] each.
  """
  scale = np.exp(arrays["r_mag"].astype(np.float64))
  threshold = arrays["b_mag"] - scale * arrays["b_gate"]
  gated = {
    "W_enc": arrays["W_enc"] * scale,
    "b_enc": arrays["b_mag"],
    # A magnitude below 0 is none, so neither is its threshold.
    "threshold": np.maximum(threshold, 0),
  }
  of_gate = ("r_mag", "b_mag", "b_gate")
  return {k: x for k, x in arrays.items() if k not in of_gate} | gated


@overflowing
def unit_directions(arrays: Arrays) -> Arrays:
  """Moves the norms of W_dec's rows into the latents; x̂ stays."""
  norms = np.linalg.norm(arrays["W_dec"].astype(np.float64), axis=1)
  return arrays | {
    "W_enc": arrays["W_enc"] * norms,
    "b_enc": arrays["b_enc"] * norms,
    "W_dec": arrays["W_dec"] / np.where(norms > 0, norms, 1)[:, None],
  }


@overflowing
def to_sae(
  arrays: Arrays, file: Path, k: int | None = None, skip: str = SKIP
) -> Sae:
  """Makes an autoencoder of arrays; without threshold, all are 0.

  Args:
    arrays: the arrays.
    file: where they were read, for messages.
    k: that of TopK.
    skip: the name of the skip, for messages too.

  Raises:
    UserError: the arrays are no autoencoder; names the file and the array.
  """
  arrays = {"threshold": np.zeros(arrays["b_enc"].shape)} | arrays
  arrays = {name: np.asarray(x, np.float32) for name, x in arrays.items()}
  check(arrays, file, skip)
  fields: dict[str, Any] = {
    field: jnp.asarray(arrays[name]) for field, name in NAMES.items()
  }
  w_skip = jnp.asarray(arrays[skip]) if skip in arrays else None
  return Sae(**fields, w_skip=w_skip, k=k)
