"""SAELens' `cfg.json` and `sae_weights.safetensors`.

Read are what its classes for inference save, of six architectures and of
transcoders, and what its trainers save, whose thresholds are logarithms. All
become JumpReLU or TopK on raw activations x:

  standard    latents = relu(pre), pre = (x - b) W_enc + b_enc
  jumprelu    latents = relu(pre) · (pre > threshold)
  topk        the k largest of relu(pre)
  gated       relu(pre_mag) · (gate > 0), with gate = (x - b) W_enc + b_gate and
              pre_mag = exp(r_mag) · (x - b) W_enc + b_mag

where b is b_dec if `apply_b_dec_to_input`, and 0 otherwise. As exp(r_mag) > 0,
the gate is open where pre_mag > b_mag - exp(r_mag) b_gate, a threshold.
Transcoders have no b and add x W_skipᵀ, with W_skip [D, D_in].
(github.com/decoderesearch/SAELens, `sae_lens/saes`, version 6.54.12.)

Shapes: D_in width of the site read, D of the one written, F latents.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from etils import epath

from jaxsae.errors import UserError
from jaxsae.files import given_path, is_file
from jaxsae.formats import folding, names, tensors
from jaxsae.formats.arrays import (
  SKIP,
  Arrays,
  check,
  check_one_width,
  overflowing,
)
from jaxsae.formats.format import Path
from jaxsae.formats.gemma_scope import width_label
from jaxsae.formats.published import Published, figures
from jaxsae.lm import Taps
from jaxsae.lm.sites import HUGGING_FACE
from jaxsae.sae.model import Sae

FILE, CONFIG = "sae_weights.safetensors", "cfg.json"

# The first version of SAELens whose configuration has this layout.
_LAYOUT = "6.0.0"
_COMMON = {"W_enc", "W_dec", "b_dec"}
_PLAIN = _COMMON | {"b_enc"}
_NAMES = {
  "standard": _PLAIN,
  "jumprelu": _PLAIN | {"threshold"},
  "topk": _PLAIN,
  "gated": _COMMON | {"b_gate", "b_mag", "r_mag"},
  "transcoder": _PLAIN,
  "skip_transcoder": _PLAIN | {"W_skip"},
  "jumprelu_transcoder": _PLAIN | {"threshold"},
  "jumprelu_skip_transcoder": _PLAIN | {"threshold", "W_skip"},
}


class SaeLens:
  """SAELens' format, as one of `FORMATS`."""

  name = "sae_lens"
  accepts = f"SAELens' {FILE} with its {CONFIG}"

  def matches(self, path: Path) -> bool:
    """Returns whether a folder has the weights under SAELens' name."""
    return is_file(tensors.folder_at(path, FILE, CONFIG) / FILE)

  def read(self, path: Path) -> Published:
    """Reads a folder; its metadata tell site, model and L0 if they are there.

    Raises:
      UserError: a file is damaged, or the autoencoder does something that ours
        do not, such as normalising each token.
    """
    folder = tensors.folder_at(path, FILE, CONFIG)
    config = tensors.read_config(folder / CONFIG)
    kind = _architecture(config, folder / CONFIG)
    arrays = _arrays(kind, folder / FILE)
    metadata = _metadata(config)
    hook = metadata.get("hook_name")
    return Published(
      _sae(kind, arrays, config, folder),
      names.taps_of(hook, _written(kind, metadata)),
      model=names.our_model(metadata.get("model_name")),
      recipe=metadata or None,
      metrics=figures({"l0": metadata.get("l0")}),
      before_gain=names.is_before_gain(hook),
    )

  def check(self, published: Published) -> None:
    """Raises UserError for crosscoders, and TopK that SAELens cannot do."""
    _kind(published)

  def write(self, published: Published, path: Path) -> None:
    """Writes both files into a folder."""
    folder, kind, sae = given_path(path), _kind(published), published.sae
    arrays = {
      name: np.asarray(getattr(sae, name.lower()), np.float32)
      for name in sorted(_NAMES[kind])
    }
    threshold = np.asarray(sae.threshold)
    check({"threshold": threshold} | arrays, folder / FILE)
    if SKIP in arrays:
      arrays[SKIP] = arrays[SKIP].T
    text = tensors.json_text(_config(published, kind))
    tensors.write(arrays, folder / FILE, text, folder / CONFIG)

  def place(self, published: Published) -> str:
    """Returns the folder that its site, width and L0 have."""
    taps, l0 = published.taps_and_l0()
    return f"{taps}/width_{width_label(published.sae.width)}/l0_{l0}"


def _architecture(config: Mapping[str, Any], file: epath.Path) -> str:
  """Returns the architecture, if ours can do what its settings ask for."""
  kind = config.get("architecture")
  if not isinstance(kind, str) or kind not in _NAMES:
    raise UserError(
      f"{file} has the architecture {kind!r}; those that can be read are"
      f" {', '.join(_NAMES)}. What SAELens trains in others, it saves as one of"
      " these by save_inference_model."
    )
  plain = {
    "normalize_activations": ("none", None),
    "activation_fn": ("relu", None),  # before version 6
    "activation_fn_str": ("relu", None),
    "finetuning_scaling_factor": (False, None),
  }
  for name, values in plain.items():
    if config.get(name) not in values:
      raise UserError(
        f"{file} has {name}={config[name]!r}, which ours do not do; only"
        f" {values[0]} can be read."
      )
  return kind


@overflowing
def _arrays(kind: str, file: epath.Path) -> Arrays:
  arrays = tensors.read_arrays(file)
  if "log_threshold" in arrays and "threshold" not in arrays:
    arrays["threshold"] = np.exp(arrays.pop("log_threshold"))
  scaling = arrays.get("scaling_factor")
  if scaling is not None and (scaling == 1).all():
    del arrays["scaling_factor"]
  tensors.check_names(arrays, _NAMES[kind], file)
  return arrays


def _sae(
  kind: str, arrays: Arrays, config: Mapping[str, Any], folder: epath.Path
) -> Sae:
  """Converts arrays of an architecture to ours; checks them before."""
  file = folder / FILE
  if SKIP in arrays:
    arrays[SKIP] = arrays[SKIP].T
  bias = arrays["b_gate" if kind == "gated" else "b_enc"]
  check({"b_enc": bias} | arrays, file)
  if kind == "gated":
    folding.check_gate(arrays, file)
    arrays = folding.without_gate(arrays)
  if "transcoder" not in kind:
    check_one_width(arrays["W_enc"], arrays["W_dec"], file)
    if config.get("apply_b_dec_to_input", True):
      arrays = folding.without_shift(arrays, file)
  if config.get("rescale_acts_by_decoder_norm", False):
    arrays = folding.unit_directions(arrays)
  k = None
  if kind == "topk":
    k = tensors.checked_k(config.get("k"), len(bias), folder / CONFIG)
  return folding.to_sae(arrays, file, k)


def _metadata(config: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the metadata, which lie among the settings before version 6."""
  metadata = config.get("metadata")
  return dict(metadata if isinstance(metadata, dict) else config)


def _written(kind: str, metadata: Mapping[str, Any]) -> object:
  return metadata.get("hook_name_out", "") if "transcoder" in kind else None


def _kind(published: Published) -> str:
  """Returns the architecture that an autoencoder is written as."""
  sae, taps = published.sae, published.taps
  several = taps is not None and len(taps.reads + taps.writes) > 2
  crosses = taps is not None and taps.transcodes
  crosses |= sae.w_skip is not None or sae.w_enc.shape[0] != sae.w_dec.shape[1]
  if several:
    raise UserError(
      f"{taps} reads or writes several sites; SAELens has no crosscoders."
    )
  if sae.k is None:
    skip = "_skip" if sae.w_skip is not None else ""
    return f"jumprelu{skip}_transcoder" if crosses else "jumprelu"
  if crosses:
    raise UserError(
      f"A TopK transcoder (k={sae.k}) cannot be written in SAELens' format,"
      " whose transcoders are ReLU or JumpReLU."
    )
  return "topk"


def _config(published: Published, kind: str) -> dict[str, Any]:
  """Returns `cfg.json`."""
  sae, taps = published.sae, published.taps
  (d_in, width), d = sae.w_enc.shape, sae.w_dec.shape[1]
  heads = taps is not None and taps.reads[0].where == "attn"
  config: dict[str, Any] = {
    "architecture": kind,
    "d_in": d_in,
    "d_sae": width,
    "dtype": "float32",
    "device": "cpu",
    "apply_b_dec_to_input": False,  # true if it were not there
    "normalize_activations": "none",
    "reshape_activations": "hook_z" if heads else "none",
    "metadata": _described(published, taps),
  }
  if "transcoder" in kind:
    config["d_out"] = d
  if kind == "topk":
    if np.asarray(sae.threshold).any():
      raise UserError(
        "A TopK autoencoder with thresholds cannot be written in SAELens'"
        " format, which has none for TopK."
      )
    config |= {"k": sae.k, "rescale_acts_by_decoder_norm": False}
  return config


def _described(published: Published, taps: Taps | None) -> dict[str, Any]:
  """Returns the metadata; what is not known is left out."""
  recipe = published.recipe or {}
  data = recipe.get("data")
  known = {
    "sae_lens_version": _LAYOUT,
    "model_name": names.their_model(published.model),
    "prepend_bos": True,
    "context_size": data.get("context") if isinstance(data, dict) else None,
    "l0": published.metrics.get("l0"),
  }
  if taps is not None:
    read = taps.reads[0]
    if published.before_gain and taps.kind == "transcoder":
      # Hugging Face has no module whose output it is.
      known["hook_name"] = names.BEFORE_GAIN.format(layer=read.layer)
    else:
      known["hook_name"] = names.name_of(read)
      known["hf_hook_name"] = names.name_of(read, HUGGING_FACE)
    if taps.transcodes:
      known["hook_name_out"] = names.name_of(taps.writes[0])
  return {name: value for name, value in known.items() if value is not None}
