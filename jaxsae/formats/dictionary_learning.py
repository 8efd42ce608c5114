"""dictionary_learning's `ae.pt` and `config.json`, which are only read.

The class in `config.json` says what the tensors mean; all become JumpReLU or
TopK on raw activations x (bias b, threshold θ):

  AutoEncoder             relu((x - b) W_enc + b_enc)
  AutoEncoderNew          relu(x W_enc + b_enc)
  GatedAutoEncoder        relu(exp(r_mag) x_enc + mag_bias) · (x_enc + gate_bias
                          > 0), with x_enc = (x - b) W_enc
  JumpReluAutoEncoder     as Gemma Scope
  AutoEncoderTopK         the k largest of relu((x - b) W_enc + b_enc), or above
                          its threshold θ where it was given one
  BatchTopKSAE, MatryoshkaBatchTopKSAE   those above θ

(github.com/saprmarks/dictionary_learning at 60ec6bf, `dictionary.py`,
`trainers/top_k.py`, `trainers/batch_top_k.py`.)

Shapes: D width of the site, F latents.
"""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from etils import epath

from jaxsae.errors import UserError
from jaxsae.files import given_path, is_file
from jaxsae.formats import names, tensors, torch_zip
from jaxsae.formats.arrays import check_shapes, check_values
from jaxsae.formats.format import Path
from jaxsae.formats.published import Published
from jaxsae.lm import Site, Taps
from jaxsae.sae.model import Sae

FILE, CONFIG = "ae.pt", "config.json"

Arrays = dict[str, np.ndarray]

# The names that the tensors have in other formats; T marks one that is
# transposed.
_LINEAR = {
  "encoder.weight": "W_encT",
  "encoder.bias": "b_enc",
  "decoder.weight": "W_decT",
}
_TOPK = {**_LINEAR, "b_dec": "b_dec", "k": "k", "threshold": "threshold"}
_PLAIN = {x: x for x in ("W_enc", "b_enc", "W_dec", "b_dec", "threshold")}
_CLASSES: dict[str, dict[str, str]] = {
  "AutoEncoder": {**_LINEAR, "bias": "b_dec"},
  "AutoEncoderNew": {**_LINEAR, "decoder.bias": "b_dec"},
  "GatedAutoEncoder": {
    "encoder.weight": "W_encT",
    "decoder.weight": "W_decT",
    "decoder_bias": "b_dec",
    "r_mag": "r_mag",
    "mag_bias": "b_enc",
    "gate_bias": "b_gate",
  },
  "JumpReluAutoEncoder": _PLAIN,
  "AutoEncoderTopK": _TOPK,
  "BatchTopKSAE": _TOPK,
  "MatryoshkaBatchTopKSAE": {**_PLAIN, "k": "k", "group_sizes": "group_sizes"},
}
_WITHOUT_SHIFT = ("AutoEncoderNew", "JumpReluAutoEncoder")
_ONE_THRESHOLD = ("BatchTopKSAE", "MatryoshkaBatchTopKSAE")
_ONLY_READ = "dictionary_learning's format is only read; use another --format."


class DictionaryLearning:
  """dictionary_learning's format, as one of `FORMATS`."""

  name = "dictionary_learning"
  accepts = f"a directory that holds dictionary_learning's {FILE} and {CONFIG}"

  def matches(self, path: Path) -> bool:
    """Returns whether a folder has the weights under their name."""
    return is_file(_folder(path) / FILE)

  def read(self, path: Path) -> Published:
    """Reads a folder; torch is not needed, and nothing in it is run."""
    folder = _folder(path)
    config = tensors.read_config(folder / CONFIG)
    trainer = config.get("trainer")
    trainer = trainer if isinstance(trainer, dict) else {}
    kind = _kind(trainer, folder / CONFIG)
    arrays = _arrays(kind, folder / FILE)
    k = _k(arrays, folder / FILE) if kind == "AutoEncoderTopK" else None
    arrays = _on_raw(kind, arrays, folder / FILE)
    fields: dict[str, Any] = {
      name.lower(): jnp.asarray(arrays[name]) for name in _PLAIN
    }
    return Published(
      Sae(**fields, k=k),
      _taps(trainer),
      model=names.our_model(trainer.get("lm_name")),
      recipe=config,
    )

  def check(self, published: Published) -> None:
    """Raises UserError, for nothing is written."""
    raise UserError(_ONLY_READ)

  def write(self, published: Published, path: Path) -> None:
    """Raises UserError, for nothing is written."""
    raise UserError(_ONLY_READ)

  def place(self, published: Published) -> str:
    """Raises UserError, for nothing is written."""
    raise UserError(_ONLY_READ)


def _folder(path: Path) -> epath.Path:
  path = given_path(path)
  return path.parent if path.name in (FILE, CONFIG) else path


def _kind(trainer: Mapping[str, Any], file: epath.Path) -> str:
  kind = trainer.get("dict_class")
  if not isinstance(kind, str) or kind not in _CLASSES:
    raise UserError(
      f"{file} has the dict_class {kind!r}; those that can be read are"
      f" {', '.join(_CLASSES)}."
    )
  return kind


def _taps(trainer: Mapping[str, Any]) -> Taps | None:
  """Returns the residual stream after a layer, if it was trained there."""
  layer, name = trainer.get("layer"), str(trainer.get("submodule_name"))
  if type(layer) is not int or layer < 0 or not name.startswith("resid_post"):
    return None
  return Taps.of(Site("resid", layer))


def _arrays(kind: str, file: epath.Path) -> Arrays:
  """Reads the tensors of a class, under their names in other formats."""
  found, wanted = torch_zip.read(file), _CLASSES[kind]
  tensors.check_names(found, set(wanted), file)
  arrays: Arrays = {}
  for name, ours in wanted.items():
    value = np.asarray(found[name], np.float32)
    transposed = ours.endswith("T")
    if transposed and value.ndim != 2:
      raise UserError(
        f"{name} in {file} has shape {value.shape}, not two axes."
      )
    arrays[ours.removesuffix("T")] = value.T if transposed else value
  return arrays


def _k(arrays: Arrays, file: epath.Path) -> int:
  width = len(arrays["W_dec"])
  if arrays["k"].shape != () or not 1 <= arrays["k"] <= width:
    raise UserError(f"k in {file} is {arrays['k']}, not from 1 to {width:,}.")
  return int(arrays["k"])


def _on_raw(kind: str, arrays: Arrays, file: epath.Path) -> Arrays:
  """Returns the arrays of JumpReLU on raw activations; checks all of them."""
  bias = arrays["b_enc"]
  zeros = np.zeros(bias.shape, np.float32)
  if kind in _ONE_THRESHOLD:
    threshold = arrays["threshold"]
    if threshold.shape != ():
      raise UserError(
        f"threshold in {file} has shape {threshold.shape}, not ()."
      )
    # -1 before it is estimated: then all that is above 0 is active.
    arrays = arrays | {"threshold": zeros + np.maximum(threshold, 0)}
  elif kind != "JumpReluAutoEncoder":
    arrays = arrays | {"threshold": zeros}
  check_shapes({name: arrays[name].shape for name in _PLAIN}, file)
  for name in {"r_mag", "b_gate"} & arrays.keys():
    if arrays[name].shape != bias.shape:
      raise UserError(
        f"{name} in {file} has shape {arrays[name].shape}, not {bias.shape}."
      )
  check_values(arrays, file)
  arrays = _plain(kind, arrays)
  check_values(arrays, file)
  return arrays


def _plain(kind: str, arrays: Arrays) -> Arrays:
  """Folds what a class does besides JumpReLU into the arrays."""
  exact = {name: x.astype(np.float64) for name, x in arrays.items()}
  if kind == "GatedAutoEncoder":
    scale = np.exp(exact["r_mag"])
    exact["W_enc"] = exact["W_enc"] * scale
    gate = exact["b_enc"] - scale * exact["b_gate"]
    exact["threshold"] = np.maximum(gate, 0)
  if kind not in _WITHOUT_SHIFT:
    exact["b_enc"] = exact["b_enc"] - exact["b_dec"] @ exact["W_enc"]
  if kind == "AutoEncoder":  # as its from_pretrained does
    norms = np.linalg.norm(exact["W_dec"], axis=1)
    exact["W_dec"] = exact["W_dec"] / norms[:, None]
    exact["W_enc"], exact["b_enc"] = (
      exact["W_enc"] * norms,
      exact["b_enc"] * norms,
    )
  return {name: exact[name].astype(np.float32) for name in _PLAIN}
