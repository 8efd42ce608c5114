"""Llama Scope's `hyperparams.json` and `checkpoints/final.safetensors`.

They are only read. The weights see activations scaled to a mean norm of √D, by
s_in = √D / dataset_average_activation_norm.in and likewise s_out, and were
trained as TopK. As their authors load them (github.com/OpenMOSS/
Language-Model-SAEs at df060704, `SparseAutoEncoder.from_config`), on raw x:

  pre = (x W_enc + b_enc / s_in) ⊙ n,  n = ‖rows of W_dec s_in / s_out‖
  x̂ = latents W_dec / ‖rows of W_dec‖ + b_dec / s_out

Which latents are active, the authors have not said for certain (the question is
open: github.com/OpenMOSS/Llamascopium/issues/128, which measured these L0 for
layer 15, residual, 8x; the last counts special tokens too). So there are three
readings of the same arrays:

  jumprelu  L0 29     pre > jump_relu_threshold, as the authors' code does; that
                      threshold left top_k latents active on their tokens
  topk      L0 42     the top_k largest, as they were trained
  relu      L0 1,089  pre > 0

SAELens compares pre / n with the threshold.

Shapes: D_in width of the site read, D of the one written, F latents.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from etils import epath

from jaxsae.errors import UserError
from jaxsae.files import is_file
from jaxsae.formats import folding, names, tensors
from jaxsae.formats.arrays import Arrays, check, check_one_width, overflowing
from jaxsae.formats.format import Path, ReadOnly
from jaxsae.formats.published import Published, figures
from jaxsae.sae.model import Sae

FILE, CONFIG = "checkpoints/final.safetensors", "hyperparams.json"
READINGS = ("jumprelu", "topk", "relu")

# Tensors of torch's linear layers; the weights are transposed.
_ARRAYS = {
  "encoder.weight": "W_enc",
  "encoder.bias": "b_enc",
  "decoder.weight": "W_dec",
  "decoder.bias": "b_dec",
}


class LlamaScope(ReadOnly):
  """Llama Scope's format, as one of `FORMATS`."""

  name = "llama_scope"
  accepts = f"Llama Scope's folder of {CONFIG} and {FILE}"

  def matches(self, path: Path) -> bool:
    """Returns whether a folder has the weights under their name."""
    return is_file(tensors.folder_at(path, CONFIG) / FILE)

  def read(self, path: Path, reading: str | None = None) -> Published:
    """Reads a folder; its hyperparameters tell the site.

    The record's recipe says under `reading` which one it is, and under
    `l0_of_readings` the L0 that the authors aimed at in each.

    Args:
      path: the folder.
      reading: one of `READINGS`; None: the one that the authors' code chooses,
        jumprelu wherever there is a threshold.
    """
    folder = tensors.folder_at(path, CONFIG)
    config = tensors.read_config(folder / CONFIG)
    reading = _checked(reading or _chosen(config), folder)
    aims = _aims(config)
    hook = config.get("hook_point_in")
    return Published(
      _sae(reading, config, folder),
      names.taps_of(hook, config.get("hook_point_out") or hook),
      recipe=config | {"reading": reading, "l0_of_readings": aims},
      metrics=figures({"l0": aims[reading]}),
      before_gain=names.is_before_gain(hook),
    )


def _chosen(config: Mapping[str, Any]) -> object:
  """Returns the reading that the authors' code chooses."""
  kind = config.get("act_fn")
  kind = kind.lower() if isinstance(kind, str) else kind
  has_threshold = bool(config.get("jump_relu_threshold"))
  return "jumprelu" if kind == "topk" and has_threshold else kind


def _aims(config: Mapping[str, Any]) -> dict[str, float | None]:
  """Returns the L0 that the authors aimed at in each reading."""
  aim = figures({"l0": config.get("top_k")}).get("l0")
  return {"jumprelu": aim, "topk": aim, "relu": None}


def _checked(reading: object, folder: epath.Path) -> str:
  """Returns a reading, or raises UserError if it is none."""
  if not isinstance(reading, str) or reading not in READINGS:
    raise UserError(
      f"{folder} cannot be read as {reading!r}; give a reading, one of"
      f" {', '.join(READINGS)}."
    )
  return reading


def _sae(reading: str, config: Mapping[str, Any], folder: epath.Path) -> Sae:
  """Reads the arrays on raw activations, and what makes latents active."""
  arrays = _on_raw(_arrays(folder / FILE), config, folder / CONFIG)
  if config.get("apply_decoder_bias_to_pre_encoder"):
    arrays = folding.without_shift(arrays, folder / FILE)
  if config.get("sparsity_include_decoder_norm", True):
    arrays = folding.unit_directions(arrays)
  width, k = len(arrays["b_enc"]), None
  if reading == "jumprelu":
    least = _positive(config, "jump_relu_threshold", folder / CONFIG)
    arrays |= {"threshold": np.full(width, least)}
  if reading == "topk":
    k = tensors.checked_k(config.get("top_k"), width, folder / CONFIG)
  return folding.to_sae(arrays, folder / FILE, k)


def _arrays(file: epath.Path) -> Arrays:
  """Reads the arrays under our names."""
  found = tensors.read_arrays(file)
  tensors.check_names(found, set(_ARRAYS), file)
  arrays = {ours: found[name].T for name, ours in _ARRAYS.items()}
  check(arrays, file)
  check_one_width(arrays["W_enc"], arrays["W_dec"], file)
  return arrays


@overflowing
def _on_raw(
  arrays: Arrays, config: Mapping[str, Any], file: epath.Path
) -> Arrays:
  """Folds the scales of activations into the arrays."""
  scale_in, scale_out = _scales(config, arrays, file)
  return {
    "W_enc": arrays["W_enc"],
    "b_enc": arrays["b_enc"] / scale_in,
    "W_dec": arrays["W_dec"] * (scale_in / scale_out),
    "b_dec": arrays["b_dec"] / scale_out,
  }


def _scales(
  config: Mapping[str, Any], arrays: Arrays, file: epath.Path
) -> tuple[float, float]:
  """Returns s_in and s_out."""
  kind = config.get("norm_activation")
  if kind == "inference":  # they are folded already
    return 1.0, 1.0
  if kind != "dataset-wise":
    raise UserError(
      f"{file} has norm_activation={kind!r}; only dataset-wise and inference"
      " can be read, for the others look at each token."
    )
  norms = config.get("dataset_average_activation_norm")
  norms = norms if isinstance(norms, dict) else {}
  root = math.sqrt(len(arrays["W_enc"]))
  scale_in, scale_out = (
    root / _positive(norms, side, file) for side in ("in", "out")
  )
  return scale_in, scale_out


def _positive(found: Mapping[str, Any], name: str, file: epath.Path) -> float:
  """Returns a number above 0 of the hyperparameters."""
  value = figures(found).get(name, 0)
  if value <= 0:
    raise UserError(
      f"{file} has {name}={found.get(name)!r}; it must be a number above 0."
    )
  return value
