"""dictionary_learning's `ae.pt` and `config.json`, which are only read.

The class in `config.json` says what the tensors mean; all become JumpReLU or
TopK on raw activations x (bias b, threshold θ):

  AutoEncoder             relu((x - b) W_enc + b_enc), in units that give
                          directions the norm 1, as its `from_pretrained` does
  AutoEncoderNew          relu(x W_enc + b_enc)
  GatedAutoEncoder        relu(exp(r_mag) x_enc + mag_bias) · (x_enc + gate_bias
                          > 0), with x_enc = (x - b) W_enc
  JumpReluAutoEncoder     as Gemma Scope
  AutoEncoderTopK         the k largest of relu((x - b) W_enc + b_enc)
  BatchTopKSAE, MatryoshkaBatchTopKSAE   those above θ

(github.com/saprmarks/dictionary_learning at 60ec6bf, `dictionary.py`,
`trainers/top_k.py`, `trainers/batch_top_k.py`.)

Shapes: D width of the site, F latents.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from etils import epath

from jaxsae.errors import UserError
from jaxsae.files import is_file
from jaxsae.formats import folding, names, tensors, torch_zip
from jaxsae.formats.arrays import Arrays, check, check_one_width, overflowing
from jaxsae.formats.format import Path, ReadOnly
from jaxsae.formats.published import Published
from jaxsae.lm import Site, Taps
from jaxsae.sae.model import Sae

FILE, CONFIG = "ae.pt", "config.json"

# Tensors of torch's linear layers, which are transposed, and of all else: the
# name in the file → the name in other formats.
_WEIGHTS = {"encoder.weight": "W_enc", "decoder.weight": "W_dec"}
_LINEAR = {**_WEIGHTS, "encoder.bias": "b_enc"}
_PLAIN = {name: name for name in ("W_enc", "b_enc", "W_dec", "b_dec")}
_JUMP = {**_PLAIN, "threshold": "threshold"}
_TOPK = {**_LINEAR, "b_dec": "b_dec", "k": "k", "threshold": "threshold"}
_CLASSES: dict[str, dict[str, str]] = {
  "AutoEncoder": {**_LINEAR, "bias": "b_dec"},
  "AutoEncoderNew": {**_LINEAR, "decoder.bias": "b_dec"},
  "GatedAutoEncoder": {
    **_WEIGHTS,
    "decoder_bias": "b_dec",
    "r_mag": "r_mag",
    "mag_bias": "b_mag",
    "gate_bias": "b_gate",
  },
  "JumpReluAutoEncoder": _JUMP,
  "AutoEncoderTopK": _TOPK,
  "BatchTopKSAE": _TOPK,
  "MatryoshkaBatchTopKSAE": {**_JUMP, "k": "k", "group_sizes": "group_sizes"},
}
_WITHOUT_SHIFT = ("AutoEncoderNew", "JumpReluAutoEncoder")
_ONE_THRESHOLD = ("BatchTopKSAE", "MatryoshkaBatchTopKSAE")


class DictionaryLearning(ReadOnly):
  """dictionary_learning's format, as one of `FORMATS`."""

  name = "dictionary_learning"
  accepts = f"dictionary_learning's {FILE} with its {CONFIG}"

  def matches(self, path: Path) -> bool:
    """Returns whether a folder has the weights under their name."""
    return is_file(tensors.folder_at(path, FILE, CONFIG) / FILE)

  def read(self, path: Path) -> Published:
    """Reads a folder; torch is not needed, and nothing in it is run."""
    folder = tensors.folder_at(path, FILE, CONFIG)
    config = tensors.read_config(folder / CONFIG)
    trainer = config.get("trainer")
    trainer = trainer if isinstance(trainer, dict) else {}
    kind = _kind(trainer, folder / CONFIG)
    arrays = _arrays(kind, folder / FILE)
    return Published(
      _sae(kind, arrays, folder / FILE),
      _taps(trainer),
      model=names.our_model(trainer.get("lm_name")),
      recipe=config,
    )


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


@overflowing
def _arrays(kind: str, file: epath.Path) -> Arrays:
  """Reads the tensors of a class, under their names in other formats."""
  found, wanted = torch_zip.read(file), _CLASSES[kind]
  tensors.check_names(found, set(wanted), file)
  arrays: Arrays = {}
  for name, ours in wanted.items():
    value = np.asarray(found[name], np.float32)
    if name in _WEIGHTS and value.ndim != 2:
      raise UserError(
        f"{name} in {file} has shape {value.shape}, not two axes."
      )
    arrays[ours] = value.T if name in _WEIGHTS else value
  return arrays


def _sae(kind: str, arrays: Arrays, file: epath.Path) -> Sae:
  """Converts the arrays of a class to ours; checks them before."""
  bias = arrays["b_gate" if kind == "GatedAutoEncoder" else "b_enc"]
  k, threshold = arrays.pop("k", None), arrays.get("threshold")
  arrays.pop("group_sizes", None)
  if kind != "JumpReluAutoEncoder":
    arrays["threshold"] = np.zeros(bias.shape, np.float32)
  if kind in _ONE_THRESHOLD:
    # -1 before it is estimated: then all that is above 0 is active.
    arrays["threshold"] += np.maximum(_number("threshold", threshold, file), 0)
  check({"b_enc": bias} | arrays, file)
  if kind == "GatedAutoEncoder":
    folding.check_gate(arrays, file)
    arrays = folding.without_gate(arrays)
  check_one_width(arrays["W_enc"], arrays["W_dec"], file)
  if kind not in _WITHOUT_SHIFT:
    arrays = folding.without_shift(arrays, file)
  if kind == "AutoEncoder":  # as its from_pretrained does
    arrays = folding.unit_directions(arrays)
  if kind != "AutoEncoderTopK":
    return folding.to_sae(arrays, file)
  whole = int(_number("k", k, file))
  return folding.to_sae(arrays, file, tensors.checked_k(whole, len(bias), file))


def _number(name: str, x: np.ndarray | None, file: epath.Path) -> float:
  if x is None or x.shape != () or not np.isfinite(x):
    raise UserError(f"{name} in {file} is {x}, which is not one number.")
  return float(x)
