"""circuit-tracer's cross-layer transcoders, which are only read.

`config.yaml`, and for each layer i of N `W_enc_i.safetensors` and
`W_dec_i.safetensors`. What is read at layer i is written to all from i on:

  latents_i = relu(pre) · (pre > threshold_i), pre = x_i W_enc_iᵀ + b_enc_i
  ŷ_t = b_dec_t + Σ_{i ≤ t} latents_i W_dec_i[:, t - i] [+ x_t W_skip_t]

(github.com/decoderesearch/circuit-tracer at 4bb8c0e, and with a skip at
05774bb: `transcoder/cross_layer_transcoder.py`.) Layer i's part is an
autoencoder by itself, which reads one site and writes N - i: its directions are
those of all targets joined, and its bias is b_dec_i for its own layer and 0 for
those after it, so that the parts add up to ŷ. Thus one part is in memory at a
time; a whole one of Gemma 2 2B would take some 50 GB.

Most read `hook_resid_mid`, the residual stream between attention and MLP. We
have no such site, so their taps are not known.

Shapes: L layers, D width of what each reads and writes, F latents of each.
"""

import re
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from etils import epath

from jaxsae.errors import UserError
from jaxsae.files import entries, given_path, is_file
from jaxsae.formats import folding, names, tensors
from jaxsae.formats.arrays import SKIP, Arrays, check_one_width
from jaxsae.formats.circuit_tracer import CONFIG, hooks, read_config
from jaxsae.formats.format import Path, ReadOnly
from jaxsae.formats.published import Published
from jaxsae.lm import Taps

_FILE = re.compile(r"W_enc_([0-9]{1,4})\.safetensors")
_KIND = "cross_layer_transcoder"


class CircuitTracerClt(ReadOnly):
  """This format, as one of `FORMATS`: each encoder's file is a part."""

  name = "circuit_tracer_clt"
  accepts = f"circuit-tracer's W_enc_….safetensors with W_dec_… and {CONFIG}"

  def matches(self, path: Path) -> bool:
    """Returns whether a file has the name of an encoder's."""
    file = given_path(path)
    return bool(_FILE.fullmatch(file.name)) and is_file(file)

  def read(self, path: Path) -> Published:
    """Reads the part of one layer, given its encoder's file."""
    file = given_path(path)
    layer = _layer(file)
    if layer is None:
      raise UserError(f"{file} tells no layer; give W_enc_0.safetensors.")
    config = read_config(file.parent / CONFIG, _KIND)
    arrays, targets = _arrays(file, layer)
    return Published(
      folding.to_sae(arrays, file),
      _taps(config, layer, targets),
      model=names.our_model(config.get("model_name")),
      recipe=config,
    )


def reconstruct(path: Path, x: np.ndarray) -> np.ndarray:
  """Computes ŷ of all layers, with one layer's arrays in memory at a time.

  Args:
    path: the folder of a cross-layer transcoder.
    x: [L, ..., D], what each layer reads.

  Returns:
    [L, ..., D], what is written to each layer.

  Raises:
    UserError: a file is damaged or missing, or x has another number of layers.
  """
  y = np.zeros(x.shape, np.float32)
  for layer, file in enumerate(_encoders(given_path(path))):
    y[layer:] += _written(file, layer, x)
  return y


def _written(file: epath.Path, layer: int, x: np.ndarray) -> np.ndarray:
  """Computes what one layer's part writes, [layers from it on, ..., D]."""
  arrays, targets = _arrays(file, layer)
  if layer + targets != len(x):
    raise UserError(
      f"{file} is of {layer + targets} layers, and x has {len(x)}."
    )
  part = folding.to_sae(arrays, file)(jnp.asarray(x[layer]))
  return np.stack(np.split(np.asarray(part), targets, axis=-1))


def _encoders(folder: epath.Path) -> list[epath.Path]:
  """Returns the encoders' files, by layer.

  Raises:
    UserError: there are none, or there is a gap.
  """
  found = map(_layer, entries(folder))
  there = sorted(layer for layer in found if layer is not None)
  if not there or there != list(range(len(there))):
    raise UserError(
      f"{folder} has W_enc_….safetensors of layers {there or '(none)'};"
      " a cross-layer transcoder has all from 0 on."
    )
  return [folder / f"W_enc_{layer}.safetensors" for layer in range(len(there))]


def _layer(file: epath.Path) -> int | None:
  """Returns the layer of an encoder's file, or None if it is none."""
  found = _FILE.fullmatch(file.name)
  return int(found[1]) if found else None


def _arrays(file: epath.Path, layer: int) -> tuple[Arrays, int]:
  """Reads the part of a layer; returns the number of its targets too."""
  found = _read(file, layer, {"W_enc", "b_enc", "b_dec"}, {"threshold", SKIP})
  decoder = file.with_name(f"W_dec_{layer}.safetensors")
  w_dec = _read(decoder, layer, {"W_dec"}, set())["W_dec"]
  if (
    w_dec.ndim != 3 or not w_dec.size or found["b_dec"].shape != w_dec.shape[2:]
  ):
    raise UserError(
      f"W_dec_{layer} in {decoder} has shape {w_dec.shape}; it must be (number"
      f" of latents, layers from {layer} on, site width), as b_dec_{layer} of"
      f" shape {found['b_dec'].shape} is."
    )
  check_one_width(found["W_enc"].T, w_dec, file)
  targets = w_dec.shape[1]
  others = (targets - 1) * w_dec.shape[2]
  # What is written to its own layer alone: there is none in the others.
  own = {
    name: _padded(found[name], others)
    for name in {"b_dec", SKIP} & found.keys()
  }
  joined = {"W_enc": found["W_enc"].T, "W_dec": w_dec.reshape(len(w_dec), -1)}
  return found | own | joined, targets


def _read(
  file: epath.Path, layer: int, wanted: set[str], optional: set[str]
) -> Arrays:
  """Reads a file's arrays, whose names end in the layer."""
  end = f"_{layer}"
  found = tensors.read_arrays(file)
  allowed = {name + end for name in optional} & found.keys()
  tensors.check_names(found, {name + end for name in wanted} | allowed, file)
  return {name.removesuffix(end): x for name, x in found.items()}


def _padded(x: np.ndarray, others: int) -> np.ndarray:
  """Adds zeros at the end of the last axis."""
  return np.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, others)])


def _taps(config: Mapping[str, Any], layer: int, count: int) -> Taps | None:
  """Returns the taps of a layer's part, if all of its sites are known."""
  read, _ = hooks(config, layer)
  if names.is_before_gain(read):  # which no taps of several sites can say
    return None
  targets = range(layer, layer + count)
  hooks_of = [read, *(hooks(config, target)[1] for target in targets)]
  sites = [site for hook in hooks_of if (site := names.site_of(hook))]
  if len(sites) < len(hooks_of):
    return None
  return Taps(tuple(sites[:1]), tuple(sites[1:]))
