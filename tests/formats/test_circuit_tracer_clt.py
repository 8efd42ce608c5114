"""Cross-layer transcoders are read layer by layer, and add up."""

import numpy as np
import pytest
import yaml
from safetensors.numpy import save_file

from jaxsae import load_saes
from jaxsae.errors import UserError
from jaxsae.formats import circuit_tracer_clt as clt
from jaxsae.formats import format_of
from jaxsae.formats.circuit_tracer import CONFIG
from jaxsae.lm import Taps

D, F, LAYERS = 5, 12, 3


def arrays(threshold=True, skip=False):
  """All arrays by name, as in circuit-tracer's state_dict of a CLT."""
  draw = np.random.default_rng(0).normal
  made = {}
  for i in range(LAYERS):
    made[f"W_enc_{i}"] = draw(size=(F, D))
    made[f"b_enc_{i}"] = draw(size=F)
    made[f"b_dec_{i}"] = draw(size=D)
    made[f"W_dec_{i}"] = draw(size=(F, LAYERS - i, D))
    if threshold:
      made[f"threshold_{i}"] = np.abs(draw(size=F))
    if skip:
      made[f"W_skip_{i}"] = draw(size=(D, D))
  return {name: x.astype(np.float32) for name, x in made.items()}


@pytest.fixture
def saved(tmp_path):
  """`saved(…)`: a folder as circuit-tracer writes it."""

  def of(change=lambda arrays: None, threshold=True, skip=False, **settings):
    config = {
      "model_kind": "cross_layer_transcoder",
      "model_name": "google/gemma-2-2b",
      "feature_input_hook": "mlp.hook_in",
      "feature_output_hook": "hook_mlp_out",
    } | settings
    folder = tmp_path / "clt"
    folder.mkdir()
    found = arrays(threshold, skip)
    change(found)
    for i in range(LAYERS):
      mine = {n: x for n, x in found.items() if n.endswith(f"_{i}")}
      decoder = {n: mine.pop(n) for n in [*mine] if n.startswith("W_dec")}
      save_file(mine, folder / f"W_enc_{i}.safetensors")
      save_file(decoder, folder / f"W_dec_{i}.safetensors")
    (folder / CONFIG).write_text(yaml.safe_dump(config))
    return folder

  return of


X = np.random.default_rng(9).normal(size=(LAYERS, 40, D)).astype(np.float32)


def latents_of(a, i):
  pre = X[i] @ a[f"W_enc_{i}"].T + a[f"b_enc_{i}"]
  return np.where(pre > a.get(f"threshold_{i}", 0), pre, 0)


def computed(a):
  """ŷ as `CrossLayerTranscoder.decode` computes it, all layers at once."""
  y = np.stack([np.tile(a[f"b_dec_{i}"], (40, 1)) for i in range(LAYERS)])
  for i in range(LAYERS):
    for target in range(i, LAYERS):
      y[target] += latents_of(a, i) @ a[f"W_dec_{i}"][:, target - i]
    if f"W_skip_{i}" in a:
      y[i] += X[i] @ a[f"W_skip_{i}"]
  return y


@pytest.mark.parametrize("threshold", [False, True])
@pytest.mark.parametrize("skip", [False, True])
def test_the_parts_add_up_to_the_whole(saved, threshold, skip):
  a = arrays(threshold, skip)
  folder = saved(threshold=threshold, skip=skip)
  y = clt.reconstruct(folder, X)
  np.testing.assert_allclose(y, computed(a), atol=5e-5)
  parts = load_saes(folder)
  assert list(parts) == [f"W_enc_{i}.safetensors" for i in range(LAYERS)]
  for i, part in enumerate(parts.values()):
    np.testing.assert_allclose(part.encode(X[i]), latents_of(a, i), atol=1e-5)


def test_one_layer_is_in_memory_at_a_time(saved, monkeypatch):
  folder, alive = saved(), []
  read = clt._arrays

  class Held(dict):
    """Arrays that tell when they are gone."""

    def __del__(self):
      alive.remove(id(self))

  def counted(file, layer):
    assert not alive
    found, targets = read(file, layer)
    held = Held(found)
    alive.append(id(held))
    return held, targets

  monkeypatch.setattr(clt, "_arrays", counted)
  clt.reconstruct(folder, X)


@pytest.mark.parametrize(
  ("read", "written", "taps"),
  [
    ("mlp.hook_in", "hook_mlp_out", "mlp_in.1:mlp.1+mlp.2"),
    ("hook_resid_mid", "hook_mlp_out", None),
    ("ln2.hook_normalized", "hook_mlp_out", None),
    ("mlp.hook_in", "hook_elsewhere", None),
    (3, None, None),
  ],
)
def test_the_configuration_tells_the_taps(saved, read, written, taps):
  folder = saved(feature_input_hook=read, feature_output_hook=written)
  file = folder / "W_enc_1.safetensors"
  found = format_of(file).read(file)
  assert found.taps == (taps and Taps.parse(taps))
  assert found.model == "gemma2-2b-pt"
  assert found.sae.w_dec.shape == (F, 2 * D)


@pytest.mark.parametrize(
  ("settings", "told"),
  [
    ({"model_kind": "transcoder_set"}, "model_kind="),
    ({"transcoders": ["/etc/passwd"]}, "transcoders"),
    ({"change": lambda x: x.pop("b_enc_0")}, "b_enc_0"),
    ({"change": lambda x: x.update(W_dec_0=np.ones((F, D), "f4"))}, "W_dec_0"),
    (
      {"change": lambda x: x.update(W_dec_0=np.ones((F, 0, D), "f4"))},
      "W_dec_0",
    ),
    (
      {"change": lambda x: x.update(W_dec_0=np.ones((9, 2, D), "f4"))},
      "W_enc",
    ),
    ({"change": lambda x: x.update(b_dec_0=np.ones((2, D), "f4"))}, "b_dec_0"),
    ({"change": lambda x: x.update(W_skip_0=np.ones((2, 2), "f4"))}, "W_skip"),
    ({"change": lambda x: x.update(W_skip_0=np.ones((), "f4"))}, "W_skip"),
    ({"change": lambda x: x["threshold_0"].fill(-1)}, "threshold"),
  ],
)
def test_a_damaged_file_is_one_sentence(saved, settings, told):
  file = saved(**settings) / "W_enc_0.safetensors"
  with pytest.raises(UserError) as refused:
    format_of(file).read(file)
  assert told in str(refused.value) and str(file.parent) in str(refused.value)
  assert "\n" not in str(refused.value)


def test_a_layer_that_is_missing_is_told(saved):
  folder = saved()
  with pytest.raises(UserError, match="x has 2"):
    clt.reconstruct(folder, X[:2])
  (folder / "W_dec_2.safetensors").unlink()
  with pytest.raises(UserError, match=r"W_dec_2\.safetensors is missing"):
    clt.reconstruct(folder, X)
  (folder / "W_enc_1.safetensors").unlink()
  with pytest.raises(UserError, match=r"\[0, 2\]"):
    clt.reconstruct(folder, X)
