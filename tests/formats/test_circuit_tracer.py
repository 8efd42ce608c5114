"""circuit-tracer's sets are read and written as its own code computes them."""

import dataclasses

import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file, save_file

from jaxsae import formats, load_sae, load_saes
from jaxsae.errors import UserError
from jaxsae.formats import Anew, Published, convert, format_of
from jaxsae.formats.circuit_tracer import CONFIG
from jaxsae.lm import Site, Taps
from jaxsae.sae import Sae

D, F, K, LAYERS = 6, 24, 3, 3


def arrays(layer=0, skip=False, threshold=True):
  draw = np.random.default_rng(layer).normal
  made = {
    "W_enc": draw(size=(F, D)),
    "b_enc": draw(size=F),
    "W_dec": draw(size=(F, D)),
    "b_dec": draw(size=D),
  }
  if threshold:
    made["activation_function.threshold"] = np.abs(draw(size=F))
  if skip:
    made["W_skip"] = draw(size=(D, D))
  return {name: x.astype(np.float32) for name, x in made.items()}


def computed(a, x, k=None):
  """Latents and ŷ as `SingleLayerTranscoder.forward` computes them."""
  pre = x @ a["W_enc"].T + a["b_enc"]
  if k is not None:
    least = np.sort(pre, axis=1)[:, -k][:, None]
    latents = np.where(pre >= least, pre, 0)
  else:
    latents = pre * (pre > a.get("activation_function.threshold", 0))
  y = latents @ a["W_dec"] + a["b_dec"]
  return latents, y + x @ a["W_skip"].T if "W_skip" in a else y


@pytest.fixture
def saved(tmp_path):
  """`saved(…)`: a folder as circuit-tracer writes it."""

  def of(arrays=arrays, **settings):
    config = {
      "model_kind": "transcoder_set",
      "model_name": "google/gemma-2-2b",
      "feature_input_hook": "ln2.hook_normalized",
      "feature_output_hook": "hook_mlp_out",
      "scan": "gemma-2-2b",
    } | settings
    folder = tmp_path / "set"
    folder.mkdir()
    for layer in range(LAYERS):
      save_file(arrays(layer), folder / f"layer_{layer}.safetensors")
    (folder / CONFIG).write_text(yaml.safe_dump(config))
    return folder

  return of


X = np.random.default_rng(9).normal(size=(50, D)).astype(np.float32)


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize(
  ("threshold", "settings"),
  [
    (True, {}),
    (True, {"activation": "jump_relu"}),
    (False, {"activation": "relu"}),
    (False, {}),
    (False, {"activation": "topk", "k": K}),
  ],
)
def test_it_computes_what_circuit_tracer_does(saved, skip, threshold, settings):
  of = lambda layer: arrays(layer, skip, threshold)
  ours = load_sae(saved(of, **settings) / "layer_1.safetensors")
  latents, y = computed(of(1), X, settings.get("k"))
  np.testing.assert_allclose(ours.encode(X), np.maximum(latents, 0), atol=1e-5)
  np.testing.assert_allclose(ours(X), y, atol=2e-5)


@pytest.mark.parametrize(
  ("read", "written", "taps", "before_gain"),
  [
    ("ln2.hook_normalized", "hook_mlp_out", Taps.transcoder(2), True),
    ("mlp.hook_in", "hook_mlp_out", Taps.transcoder(2), False),
    ("hook_resid_mid", "hook_mlp_out", None, False),
    (None, ["hook_mlp_out"], None, False),
  ],
)
def test_the_configuration_tells_the_taps(
  saved, read, written, taps, before_gain
):
  folder = saved(feature_input_hook=read, feature_output_hook=written)
  file = folder / "layer_2.safetensors"
  found = format_of(file).read(file)
  assert found.taps == taps and found.before_gain == before_gain
  assert found.model == "gemma2-2b-pt"


def test_each_file_of_a_set_is_an_autoencoder(saved):
  folder = saved()
  names = [f"layer_{layer}.safetensors" for layer in range(LAYERS)]
  assert list(load_saes(folder)) == names
  with pytest.raises(UserError, match=r"layer_0\.safetensors \(one of 3"):
    load_sae(folder)


# Writing.


def record(layer, k=None, skip=False, width=F):
  draw = np.random.default_rng(layer).normal
  made = {
    "w_enc": draw(size=(D, width)),
    "b_enc": draw(size=width),
    "w_dec": draw(size=(width, D)),
    "b_dec": draw(size=D),
    "threshold": np.zeros(width) if k else np.abs(draw(size=width)),
  }
  if skip:
    made["w_skip"] = draw(size=(D, D))
  sae = Sae(**{n: x.astype(np.float32) for n, x in made.items()}, k=k)
  gain = 1 + np.arange(D, dtype=np.float32)
  return Published(sae, Taps.transcoder(layer), gain, model="gemma2-2b-pt")


@pytest.mark.parametrize(
  ("k", "skip"), [(None, False), (None, True), (K, True)]
)
def test_what_is_written_computes_the_same(tmp_path, k, skip):
  records = [record(layer, k, skip) for layer in (1, 0)]
  files = formats.write_release("circuit_tracer", records, tmp_path / "out")
  assert sorted(files) == [CONFIG, "layer_0.safetensors", "layer_1.safetensors"]
  config = yaml.safe_load((tmp_path / "out" / CONFIG).read_text())
  assert config == {
    "model_kind": "transcoder_set",
    "model_name": "google/gemma-2-2b",
    "feature_input_hook": "ln2.hook_normalized",
    "feature_output_hook": "hook_mlp_out",
  } | ({"activation": "topk", "k": k} if k else {})
  theirs = load_file(tmp_path / "out" / "layer_1.safetensors")
  _, y = computed(theirs, X, k)
  after_gain = X * records[0].input_gain
  np.testing.assert_allclose(records[0].sae(after_gain), y, atol=1e-4)


def test_a_set_comes_back_bit_for_bit(saved, tmp_path):
  skipping = lambda layer: arrays(layer, skip=True)
  list(convert([saved(skipping)], "circuit_tracer", tmp_path / "out"))
  for layer in range(LAYERS):
    back = load_file(tmp_path / "out" / f"layer_{layer}.safetensors")
    for name, x in skipping(layer).items():
      np.testing.assert_array_equal(back[name], x)
  assert not list((tmp_path / "out").rglob("card.json"))


def test_a_set_becomes_autoencoders_and_a_set_again(saved, tmp_path):
  list(convert([saved()], "gemma_scope", tmp_path / "1", l0=9))
  found = load_saes(tmp_path / "1")
  assert sorted(found) == [
    f"transcoder/layer_{n}/width_{F}/average_l0_9" for n in range(LAYERS)
  ]
  list(convert([tmp_path / "1"], "circuit_tracer", tmp_path / "2"))
  back = load_file(tmp_path / "2" / "layer_1.safetensors")
  np.testing.assert_array_equal(back["W_enc"], arrays(1)["W_enc"])


WRONG = {
  "gap": ([record(0), record(2)], "layers 0, 2"),
  "not from 0": ([record(1)], "layers 1"),
  "twice": ([record(0), record(0)], "layers 0, 0"),
  "none": ([], r"\(none\)"),
  "width": ([record(0), record(1, width=9)], "width"),
  "k": ([record(0, K), record(1)], "has k="),
  "skip": ([record(0, skip=True), record(1)], "skip="),
  "model": (
    [record(0), dataclasses.replace(record(1), model="gemma3-1b-pt")],
    "model",
  ),
  "gain": ([dataclasses.replace(record(0), input_gain=None)], "give lm="),
  "site": (
    [record(0), dataclasses.replace(record(1), taps=Taps.of(Site("mlp", 1)))],
    r"mlp\.1",
  ),
  "sites": (
    [dataclasses.replace(record(0), taps=Taps.parse("mlp_in.0:mlp.0+mlp.1"))],
    r"mlp\.0\+mlp\.1",
  ),
}


@pytest.mark.parametrize(("records", "told"), WRONG.values(), ids=WRONG)
def test_what_is_no_set_is_refused_before_any_is_written(
  records, told, tmp_path, monkeypatch
):
  wrote = []
  monkeypatch.setattr("jaxsae.formats.tensors.write", wrote.append)
  for given in (records, iter(records), Anew(lambda: iter(records))):
    with pytest.raises(UserError, match=told) as refused:
      formats.write_release("circuit_tracer", given, tmp_path / "out")
    assert "\n" not in str(refused.value)
  assert not list(tmp_path.iterdir()) and not wrote


def test_no_two_records_are_kept(tmp_path):
  """Records that can be made anew are gone through one by one, and again."""
  made = []

  def records():
    for layer in range(LAYERS):
      made.append(layer)
      yield record(layer)

  formats.write_release("circuit_tracer", Anew(records), tmp_path / "out")
  assert made == 2 * list(range(LAYERS))


# Damage.


def without(name):
  return lambda layer: {n: x for n, x in arrays(layer).items() if n != name}


@pytest.mark.parametrize(
  ("made", "settings", "told"),
  [
    (arrays, {"model_kind": "cross_layer_transcoder"}, "model_kind="),
    (arrays, {"transcoders": ["../../secret.npz"]}, "transcoders"),
    (arrays, {"transcoders": ["hf://a/b/c.npz"]}, "transcoders"),
    (arrays, {"activation": "gelu"}, "gelu"),
    (arrays, {"activation": ["topk"]}, "topk"),
    (arrays, {"activation": "topk", "k": K}, "threshold"),
    (
      without("activation_function.threshold"),
      {"activation": "topk"},
      "k=None",
    ),
    (without("b_dec"), {}, "b_dec"),
    (lambda _: arrays() | {"b_dec": np.ones(5, "f4")}, {}, "b_dec"),
    (lambda _: arrays() | {"W_skip": np.ones((2, D), "f4")}, {}, "W_skip"),
  ],
)
def test_a_damaged_file_is_one_sentence(saved, made, settings, told):
  file = saved(made, **settings) / "layer_0.safetensors"
  with pytest.raises(UserError) as refused:
    load_sae(file)
  assert told in str(refused.value) and str(file.parent) in str(refused.value)
  assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
  "text",
  [
    "",
    "[1, 2]",
    "a: [",
    "5: 6",
    "!!python/object/apply:os.mkdir [made]",
    "a: &a [x, x]\nb: [*a, *a]",
    "x: " + "[" * 50_000,
    "x: " + "y" * 200_000,
  ],
  ids=["empty", "list", "cut", "keys", "code", "aliases", "deep", "large"],
)
def test_a_damaged_configuration_is_one_sentence(saved, text):
  file = saved() / CONFIG
  file.write_text(text)
  with pytest.raises(UserError, match=r"config\.yaml is damaged") as refused:
    load_sae(file.with_name("layer_0.safetensors"))
  assert "\n" not in str(refused.value)


def test_the_file_of_another_set_is_not_added(tmp_path):
  layout = formats.FORMATS["circuit_tracer"]
  layout.write(record(0), tmp_path)
  other = dataclasses.replace(record(1), model="gemma3-1b-pt")
  with pytest.raises(UserError, match="another set"):
    layout.write(other, tmp_path)
  with pytest.raises(UserError, match="exists"):
    layout.write(record(0), tmp_path)
