"""Llama Scope's files are read as its authors' code computes them."""

import json
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import save_file

from jaxsae import formats, load_sae, load_saes
from jaxsae.errors import UserError
from jaxsae.formats.llama_scope import CONFIG, FILE, READINGS, LlamaScope
from jaxsae.lm import Site, Taps

D, F, K, THRESHOLD = 6, 40, 4, 1.9
MEAN_NORM = {"in": 5.3, "out": 3.1}


def arrays():
  draw = np.random.default_rng(0).normal
  made = {
    "encoder.weight": draw(size=(F, D)),
    "encoder.bias": draw(size=F),
    "decoder.weight": draw(size=(D, F)) * np.linspace(0.5, 3, F),
    "decoder.bias": draw(size=D),
  }
  return {name: x.astype(np.float32) for name, x in made.items()}


@pytest.fixture
def saved(tmp_path):
  """`saved(…)`: a folder as lm_saes writes it."""

  def of(change=lambda arrays: None, **settings):
    config = {
      "d_model": D,
      "d_sae": F,
      "act_fn": "jumprelu",
      "jump_relu_threshold": THRESHOLD,
      "top_k": K,
      "norm_activation": "dataset-wise",
      "dataset_average_activation_norm": MEAN_NORM,
      "sparsity_include_decoder_norm": True,
      "apply_decoder_bias_to_pre_encoder": False,
      "hook_point_in": "blocks.15.hook_resid_post",
      "hook_point_out": "blocks.15.hook_resid_post",
    } | settings
    found = arrays()
    change(found)
    folder = tmp_path / "Llama3_1-8B-Base-L15R-8x"
    (folder / FILE).parent.mkdir(parents=True)
    save_file(found, folder / FILE)
    (folder / CONFIG).write_text(json.dumps(config))
    return folder

  return of


def scaled(side):
  return np.sqrt(D) / MEAN_NORM[side]


def computed(x, reading, weighted=True):
  """Active latents and x̂, in the units in which the weights were trained."""
  a = arrays()
  pre = scaled("in") * x @ a["encoder.weight"].T + a["encoder.bias"]
  norms = np.linalg.norm(a["decoder.weight"], axis=0) if weighted else 1.0
  least = {
    "relu": np.zeros((len(x), 1)),
    "jumprelu": THRESHOLD * (scaled("out") if weighted else scaled("in")),
    "topk": np.sort(pre * norms, axis=1)[:, -K - 1][:, None],
  }[reading]
  active = (pre * norms > least) & (pre > 0)
  latents = np.where(active, pre, 0)
  x_hat = latents @ a["decoder.weight"].T + a["decoder.bias"]
  return active, x_hat / scaled("out")


X = 3 * np.random.default_rng(1).normal(size=(60, D)).astype(np.float32)


@pytest.mark.parametrize("reading", READINGS)
def test_each_reading_computes_what_its_authors_code_does(saved, reading):
  active, x_hat = computed(X, reading)
  sae = LlamaScope().read(saved(), reading).sae
  np.testing.assert_array_equal(np.asarray(sae.encode(X)) > 0, active)
  np.testing.assert_allclose(sae(X), x_hat, atol=2e-5)


def test_readings_differ_in_what_is_active_alone(saved):
  folder = saved()
  l0 = {}
  for reading in READINGS:
    found = LlamaScope().read(folder, reading)
    l0[reading] = float((found.sae.encode(X) > 0).sum(-1).mean())
    np.testing.assert_array_equal(found.sae.w_enc, load_sae(folder).w_enc)
    assert found.recipe["reading"] == reading
    assert found.recipe["l0_of_readings"] == {
      "jumprelu": K,
      "topk": K,
      "relu": None,
    }
    assert found.metrics == ({} if reading == "relu" else {"l0": K})
  assert l0["topk"] == K < l0["jumprelu"] < l0["relu"]


@pytest.mark.parametrize(
  ("settings", "reading"),
  [
    ({}, "jumprelu"),
    ({"act_fn": "JumpReLU"}, "jumprelu"),
    ({"act_fn": "topk"}, "jumprelu"),
    ({"act_fn": "topk", "jump_relu_threshold": 0.0}, "topk"),
    ({"act_fn": "relu"}, "relu"),
  ],
)
def test_the_reading_is_the_one_that_the_authors_code_chooses(
  saved, settings, reading
):
  assert LlamaScope().read(saved(**settings)).recipe["reading"] == reading


def test_directions_keep_their_norms_if_they_do_not_count(saved):
  folder = saved(sparsity_include_decoder_norm=False)
  active, x_hat = computed(X, "topk", weighted=False)
  sae = LlamaScope().read(folder, "topk").sae
  np.testing.assert_array_equal(np.asarray(sae.encode(X)) > 0, active)
  np.testing.assert_allclose(sae(X), x_hat, atol=2e-5)


def test_a_bias_that_is_taken_from_the_input_is_folded(saved):
  same = {"in": 5.3, "out": 5.3}
  folder = saved(
    apply_decoder_bias_to_pre_encoder=True, dataset_average_activation_norm=same
  )
  a, scale = arrays(), scaled("in")
  inner = (scale * X - a["decoder.bias"]) @ a["encoder.weight"].T
  latents = np.maximum(inner + a["encoder.bias"], 0)
  x_hat = (latents @ a["decoder.weight"].T + a["decoder.bias"]) / scale
  sae = LlamaScope().read(folder, "relu").sae
  np.testing.assert_allclose(sae(X), x_hat, atol=5e-5)


@pytest.mark.parametrize(
  ("read", "written", "taps", "before_gain"),
  [
    ("hook_resid_post", "hook_resid_post", Taps.of(Site("resid", 8)), False),
    ("hook_mlp_out", None, Taps.of(Site("mlp", 8)), False),
    ("hook_attn_out", "hook_attn_out", None, False),
    ("ln2.hook_normalized", "hook_mlp_out", Taps.transcoder(8), True),
  ],
)
def test_the_hooks_tell_the_taps(saved, read, written, taps, before_gain):
  folder = saved(
    hook_point_in=f"blocks.8.{read}",
    hook_point_out=written and f"blocks.8.{written}",
  )
  found = LlamaScope().read(folder)
  assert found.taps == taps and found.before_gain == before_gain


def test_the_folder_and_its_hyperparameters_are_the_same(saved):
  folder = saved()
  assert load_sae(folder / CONFIG).width == load_sae(folder).width == F
  assert list(load_saes(folder.parent)) == [folder.name]


def test_another_reading_is_converted(saved, tmp_path):
  command = [sys.executable, "-m", "jaxsae.cli", "convert", str(saved())]
  words = [str(tmp_path / "out"), "--format=sae_lens"]
  done = subprocess.run(
    [*command, *words, "--reading=topk"], capture_output=True, text=True
  )
  assert done.returncode == 0, done.stderr
  (name,) = load_saes(tmp_path / "out")
  assert load_sae(tmp_path / "out" / name).k == K


def test_a_reading_of_another_format_is_refused(tmp_path, saved):
  list(formats.convert([saved()], "gemma_scope", tmp_path / "1"))
  again = formats.convert(
    [tmp_path / "1"], "sae_lens", tmp_path / "2", reading="topk"
  )
  with pytest.raises(UserError, match=r"reading=topk.*gemma_scope"):
    list(again)
  assert not (tmp_path / "2").exists()


@pytest.mark.parametrize(
  ("settings", "told"),
  [
    ({"act_fn": "batchtopk"}, "'batchtopk'"),
    ({"act_fn": None}, "None"),
    ({"jump_relu_threshold": -1.0}, "jump_relu_threshold=-1.0"),
    ({"jump_relu_threshold": "1"}, "jump_relu_threshold='1'"),
    ({"act_fn": "topk", "jump_relu_threshold": 0, "top_k": 41}, "k=41"),
    ({"norm_activation": "token-wise"}, "token-wise"),
    ({"dataset_average_activation_norm": None}, "in=None"),
    ({"dataset_average_activation_norm": {"in": 1, "out": 0}}, "out=0"),
    ({"change": lambda x: x.pop("decoder.bias")}, "decoder.bias"),
    (
      {"change": lambda x: x.update({"encoder_glu.bias": np.ones(2, "f4")})},
      "encoder_glu.bias",
    ),
    (
      {"change": lambda x: x.update({"decoder.bias": np.ones(5, "f4")})},
      "b_dec",
    ),
    ({"change": lambda x: x["encoder.bias"].fill(np.nan)}, "b_enc"),
  ],
)
def test_a_damaged_file_is_one_sentence(saved, settings, told):
  folder = saved(**settings)
  with pytest.raises(UserError) as refused:
    load_sae(folder)
  assert told in str(refused.value) and str(folder) in str(refused.value)
  assert "\n" not in str(refused.value)


def test_an_unknown_reading_names_those_that_there_are(saved):
  with pytest.raises(UserError, match=r"'top'.*jumprelu, topk, relu"):
    LlamaScope().read(saved(), "top")
