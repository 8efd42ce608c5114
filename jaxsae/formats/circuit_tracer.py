"""circuit-tracer's sets of transcoders: `config.yaml`, `layer_0.safetensors` …

  latents = relu(pre) · (pre > threshold), pre = x W_encᵀ + b_enc
  ŷ = latents W_dec + b_dec [+ x W_skipᵀ]

with `activation: relu` or no threshold in the file, threshold = 0; with
`activation: topk` and `k`, the k largest of relu(pre) (circuit-tracer's have no
relu, and differ where fewer than k values are above 0). The configuration names
what all layers read and write: `ln2.hook_normalized`, before the gain of the
norm, or `mlp.hook_in`, after it. We write the former, which all of its backends
know for Gemma. (github.com/decoderesearch/circuit-tracer at 4bb8c0e,
`transcoder/single_layer_transcoder.py`, `utils/hf_utils.py`.)

circuit-tracer takes the layers 0 … N - 1, without a gap, as one set.

Shapes: D_in width of the site read, D of the one written, F latents.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from jaxsae.errors import UserError
from jaxsae.files import given_path, is_file
from jaxsae.formats import folding, names, tensors
from jaxsae.formats.arrays import NAMES, SKIP, Arrays, check, check_one_width
from jaxsae.formats.format import Path
from jaxsae.formats.gemma_scope import check_gain, without_gain
from jaxsae.formats.published import Published
from jaxsae.lm import Taps
from jaxsae.sae.model import Sae

CONFIG = "config.yaml"
_FILE = re.compile(r"layer_([0-9]{1,4})\.safetensors")
_KIND = "transcoder_set"
_THRESHOLD = "activation_function.threshold"
_ARRAYS = set(NAMES.values()) - {"threshold"}
_HOOKS = ("ln2.hook_normalized", "hook_mlp_out")


class CircuitTracer:
  """circuit-tracer's format, as one of `FORMATS`: each file is a transcoder."""

  name = "circuit_tracer"
  accepts = f"circuit-tracer's layer_….safetensors with its {CONFIG}"

  def matches(self, path: Path) -> bool:
    """Returns whether a file has the name of one."""
    file = given_path(path)
    return bool(_FILE.fullmatch(file.name)) and is_file(file)

  def read(self, path: Path) -> Published:
    """Reads the transcoder of one layer; the configuration tells its taps."""
    file = given_path(path)
    layer = _FILE.fullmatch(file.name)
    if layer is None:
      raise UserError(f"{file} tells no layer; name it layer_0.safetensors.")
    config = read_config(file.parent / CONFIG, _KIND)
    read, written = hooks(config, int(layer[1]))
    return Published(
      _sae(file, config),
      names.taps_of(read, written),
      model=names.our_model(config.get("model_name")),
      recipe=config,
      before_gain=names.is_before_gain(read),
    )

  def check(self, published: Published) -> None:
    """Raises UserError for all but transcoders of one layer."""
    _layer(published)

  def check_set(self, records: Sequence[Published]) -> None:
    """Raises UserError unless records are a set; arrays may be abstract."""
    layers = sorted(map(_layer, records))
    if not layers or layers != list(range(len(layers))):
      raise UserError(
        "A set for circuit-tracer has one transcoder of each layer from 0 on;"
        f" these are of layers {', '.join(map(str, layers)) or '(none)'}."
      )
    first = _facts(records[0])
    for record in records:
      check_gain(record)
      for name, value in _facts(record).items():
        if value != first[name]:
          raise UserError(
            f"{record.taps} has {name}={value} and {records[0].taps} has"
            f" {first[name]}; a set for circuit-tracer has one {name}."
          )

  def write(self, published: Published, path: Path) -> None:
    """Writes the file of its layer, and the configuration if there is none."""
    file = given_path(path) / f"layer_{_layer(published)}.safetensors"
    arrays, config = _arrays(without_gain(published), file), _config(published)
    beside = file.with_name(CONFIG)
    if not is_file(beside):
      tensors.write(arrays, file, tensors.yaml_text(config), beside)
      return
    if tensors.read_yaml(beside) != config:
      raise UserError(
        f"{beside} is of another set than {published.taps}; choose another"
        " folder."
      )
    tensors.write_arrays(arrays, file)

  def place(self, published: Published) -> str:
    """Returns the folder of the whole set."""
    del published
    return "."


def read_config(file: epath.Path, kind: str) -> dict[str, Any]:
  """Reads a configuration, which must be of a kind of model.

  Raises:
    UserError: it is damaged or of another kind, or names files elsewhere.
  """
  config = tensors.read_yaml(file)
  if config.get("model_kind") != kind:
    raise UserError(
      f"{file} has model_kind={config.get('model_kind')!r}; that of the files"
      f" beside it is {kind}."
    )
  if "transcoders" in config:
    raise UserError(
      f"{file} names other files than those beside it, under transcoders; get"
      " these and give their paths."
    )
  return config


def hooks(config: Mapping[str, Any], layer: int) -> tuple[str, str]:
  """Returns what a layer reads and writes, as TransformerLens names it."""
  read, written = (
    f"blocks.{layer}.{config.get(f'feature_{side}_hook')}"
    for side in ("input", "output")
  )
  return read, written


def _sae(file: epath.Path, config: Mapping[str, Any]) -> Sae:
  activation = config.get("activation")
  if activation not in (None, "relu", "jump_relu", "topk"):
    raise UserError(
      f"{file.with_name(CONFIG)} has activation={activation!r}; only relu,"
      " jump_relu and topk can be read."
    )
  found = tensors.read_arrays(file)
  optional = {SKIP} | (
    set() if activation in ("relu", "topk") else {_THRESHOLD}
  )
  tensors.check_names(found, _ARRAYS | (optional & found.keys()), file)
  if _THRESHOLD in found:
    found["threshold"] = found.pop(_THRESHOLD)
  found |= {name: found[name].T for name in {"W_enc", SKIP} & found.keys()}
  check_one_width(found["W_enc"], found["W_dec"], file)
  if activation != "topk":
    return folding.to_sae(found, file)
  width = found["b_enc"].size
  k = tensors.checked_k(config.get("k"), width, file.with_name(CONFIG))
  return folding.to_sae(found, file, k)


def _layer(published: Published) -> int:
  """Returns the layer of a transcoder; raises UserError for all else."""
  taps = published.taps
  if taps is None or taps.kind != Taps.transcoder(0).kind:
    raise UserError(
      f"{taps or 'An autoencoder of unknown sites'} cannot be written for"
      " circuit-tracer, which takes transcoders of one layer; use another"
      " --format."
    )
  return taps.reads[0].layer


def _facts(published: Published) -> dict[str, Any]:
  """Returns what all transcoders of a set have in common."""
  sae = published.sae
  return {
    "model": published.model,
    "width": sae.width,
    "site width": sae.w_enc.shape[0],
    "k": sae.k,
    "skip": sae.w_skip is not None,
  }


def _arrays(sae: Sae, file: epath.Path) -> Arrays:
  """Returns the arrays as circuit-tracer has them."""
  arrays = {
    name: np.asarray(getattr(sae, field), np.float32)
    for field, name in NAMES.items()
  }
  if sae.w_skip is not None:
    arrays[SKIP] = np.asarray(sae.w_skip, np.float32)
  check(arrays, file)
  arrays |= {name: arrays[name].T for name in {"W_enc", SKIP} & arrays.keys()}
  threshold = arrays.pop("threshold")
  if sae.k is None:
    return arrays | {_THRESHOLD: threshold}
  if threshold.any():
    raise UserError(
      "A TopK transcoder with thresholds cannot be written for circuit-tracer,"
      " which has none for TopK."
    )
  return arrays


def _config(published: Published) -> dict[str, Any]:
  """Returns the configuration of the set; what is not known is left out."""
  read, written = _HOOKS
  config = {
    "model_kind": _KIND,
    "model_name": names.hugging_face_model(published.model),
    "feature_input_hook": read,
    "feature_output_hook": written,
    "activation": None if published.sae.k is None else "topk",
    "k": published.sae.k,
  }
  return {name: value for name, value in config.items() if value is not None}
