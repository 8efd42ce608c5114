"""SAELens reads what we write, and we read what its own classes save."""

import dataclasses
import json
import warnings

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jaxsae import formats, load_sae
from jaxsae.errors import UserError
from jaxsae.formats import Published
from jaxsae.formats.sae_lens import CONFIG, FILE, SaeLens
from jaxsae.lm import Site, Taps
from jaxsae.origin import origin_of
from jaxsae.sae import Sae
from tests.libraries import need

torch = need("torch")
need("sae_lens")
with warnings.catch_warnings():
  warnings.simplefilter("ignore")  # SAELens imports deprecated names
  import sae_lens
  from sae_lens.saes.jumprelu_sae import JumpReLUTrainingSAE
  from sae_lens.saes.transcoder import (
    JumpReLUSkipTranscoder,
    JumpReLUTranscoder,
    SkipTranscoder,
    Transcoder,
  )

pytestmark = [
  pytest.mark.slow,
  pytest.mark.filterwarnings("ignore"),  # SAELens' own
]

D_IN, D, F = 12, 8, 40
CLASSES = {
  "standard": sae_lens.StandardSAE,
  "jumprelu": sae_lens.JumpReLUSAE,
  "topk": sae_lens.TopKSAE,
  "gated": sae_lens.GatedSAE,
  "transcoder": Transcoder,
  "skip_transcoder": SkipTranscoder,
  "jumprelu_transcoder": JumpReLUTranscoder,
  "jumprelu_skip_transcoder": JumpReLUSkipTranscoder,
}


def random_arrays(kind, seed=0):
  """Random arrays of an architecture, all of them far from 0."""
  draw = np.random.default_rng(seed).normal
  made = {
    "W_enc": draw(size=(D_IN if "transcoder" in kind else D, F)),
    "W_dec": draw(size=(F, D)),
    "b_dec": draw(size=D),
    "b_enc": draw(size=F),
    "threshold": np.abs(draw(size=F)),
    "b_gate": draw(size=F),
    "b_mag": draw(size=F),
    "r_mag": draw(size=F),
    "W_skip": draw(size=(D, D_IN)),
  }
  return {name: x.astype(np.float32) for name, x in made.items()}


@pytest.fixture
def saved(tmp_path):
  """`saved(kind, …)`: SAELens' autoencoder, and the folder it was saved in."""

  def of(kind, **settings):
    settings = {"d_in": D, "d_sae": F, "dtype": "float32"} | settings
    if "transcoder" in kind:
      settings |= {"d_in": D_IN, "d_out": D, "apply_b_dec_to_input": False}
    settings |= {"architecture": kind, "device": "cpu"}
    theirs = CLASSES[kind].from_dict(settings)
    own = dict(theirs.named_parameters())
    arrays = random_arrays(kind)
    with torch.no_grad():
      for name, parameter in own.items():
        parameter.copy_(torch.tensor(arrays[name]))
    folder = tmp_path / kind
    theirs.save_model(folder)
    return theirs, folder

  return of


def assert_alike(theirs, ours):
  x = np.random.default_rng(1).normal(size=(300, ours.w_enc.shape[0]))
  x = x.astype(np.float32)
  with torch.no_grad():
    latents = theirs.encode(torch.tensor(x))
    whole = theirs(torch.tensor(x))
  found = np.asarray(ours.encode(x))
  np.testing.assert_allclose(found, latents.numpy(), rtol=1e-5, atol=2e-5)
  np.testing.assert_allclose(ours(x), whole.numpy(), rtol=1e-5, atol=1e-4)
  assert 0 < (found > 0).mean() < 1


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("minus_b_dec", [True, False])
def test_what_sae_lens_saves_is_read(saved, kind, minus_b_dec):
  more = {"k": 7} if kind == "topk" else {}
  theirs, folder = saved(kind, apply_b_dec_to_input=minus_b_dec, **more)
  assert_alike(theirs, load_sae(folder))


def test_norms_that_scale_the_choice_of_topk_are_folded(saved):
  theirs, folder = saved("topk", k=7, rescale_acts_by_decoder_norm=True)
  ours = load_sae(folder)
  assert_alike(theirs, ours)
  norms = np.linalg.norm(ours.w_dec, axis=1)
  np.testing.assert_allclose(norms, 1, rtol=1e-6)


def test_a_trainers_checkpoint_is_read(tmp_path):
  """Before version 6.48 it held the logarithms of thresholds."""
  settings = {"d_in": D, "d_sae": F, "dtype": "float32", "device": "cpu"}
  theirs = JumpReLUTrainingSAE.from_dict(
    settings | {"architecture": "jumprelu"}
  )
  theirs.save_inference_model(tmp_path / "new")
  arrays = load_file(tmp_path / "new" / FILE)
  expected = load_sae(tmp_path / "new")
  arrays["log_threshold"] = np.log(arrays.pop("threshold"))
  save_file(arrays, tmp_path / "new" / FILE)
  found = load_sae(tmp_path / "new")
  np.testing.assert_allclose(found.threshold, expected.threshold, rtol=1e-6)


def our_record(place, **fields):
  taps = Taps.of(place)
  kind = "jumprelu_skip_transcoder" if taps.transcodes else "jumprelu"
  arrays = random_arrays(kind)
  arrays = {n: arrays[n] for n in ("W_enc", "b_enc", "W_dec", "b_dec")}
  threshold = np.abs(random_arrays(kind, seed=2)["b_enc"])
  ours = Sae(
    **{name.lower(): jnp.asarray(x) for name, x in arrays.items()},
    threshold=jnp.asarray(threshold),
  )
  return Published(
    dataclasses.replace(ours, **fields),
    taps,
    model="gemma2-2b-pt",
    recipe={"data": {"context": 1024}},
    metrics={"l0": 71.2},
  )


RECORDS = {
  "resid": (Site("resid", 12), {}),
  "attn": (Site("attn", 3), {}),
  "transcoder": (Taps.transcoder(2), {}),
  "skip": (
    Taps.transcoder(2),
    {"w_skip": jnp.asarray(random_arrays("skip")["W_skip"].T)},
  ),
  "topk": (Site("mlp", 0), {"k": 5, "threshold": jnp.zeros(F)}),
}


@pytest.mark.parametrize("name", RECORDS)
def test_what_we_write_is_read_by_sae_lens_and_us(tmp_path, name):
  place, fields = RECORDS[name]
  record = our_record(place, **fields)
  files = formats.write_release("sae_lens", [record], tmp_path / "out")
  folder = (tmp_path / "out" / files[0]).parent
  assert sorted(p.name for p in folder.iterdir()) == sorted(
    ["card.json", CONFIG, FILE]
  )
  theirs = sae_lens.SAE.load_from_disk(folder, device="cpu")
  if name == "attn":
    theirs.turn_off_forward_pass_hook_z_reshaping()
  assert_alike(theirs, record.sae)
  assert theirs.cfg.metadata.model_name == "gemma-2-2b"
  assert theirs.cfg.metadata.context_size == 1024

  assert not origin_of(load_sae(folder)).before_gain
  again = SaeLens().read(folder)
  assert str(again.taps) == str(record.taps)
  assert (again.model, again.metrics) == ("gemma2-2b-pt", {"l0": 71.2})
  for field in dataclasses.fields(Sae):
    ours, found = (
      getattr(record.sae, field.name),
      getattr(again.sae, field.name),
    )
    np.testing.assert_array_equal(found, ours)


@pytest.mark.parametrize(
  ("place", "fields", "told"),
  [
    ("resid.1+resid.2", {}, "crosscoder"),
    (Taps.transcoder(2), {"k": 5}, "TopK transcoder"),
    ("resid.1", {"k": 5}, "thresholds"),
  ],
)
def test_what_sae_lens_has_not_is_not_written(tmp_path, place, fields, told):
  with pytest.raises(UserError, match=told):
    formats.write_release(
      "sae_lens", [our_record(place, **fields)], tmp_path / "out"
    )
  assert not list(tmp_path.iterdir())


def test_what_is_read_before_the_gain_is_told(saved):
  _, folder = saved("jumprelu_transcoder")
  config = json.loads((folder / CONFIG).read_text())
  config["metadata"] |= {
    "hook_name": "blocks.4.ln2.hook_normalized",
    "hook_name_out": "blocks.4.hook_mlp_out",
  }
  (folder / CONFIG).write_text(json.dumps(config))
  found = SaeLens().read(folder)
  assert found.taps == Taps.transcoder(4)
  assert found.before_gain and origin_of(load_sae(folder)).before_gain


def damage_config(**settings):
  def damage(folder):
    content = json.loads((folder / CONFIG).read_text()) | settings
    (folder / CONFIG).write_text(json.dumps(content))

  return damage


def damage_arrays(change):
  def damage(folder):
    arrays = load_file(folder / FILE)
    change(arrays)
    save_file(arrays, folder / FILE)

  return damage


DAMAGES = {
  "no config": (lambda f: (f / CONFIG).unlink(), CONFIG),
  "no JSON": (lambda f: (f / CONFIG).write_text("{"), CONFIG),
  "a list": (lambda f: (f / CONFIG).write_text("[]"), "values by name"),
  "deep JSON": (lambda f: (f / CONFIG).write_text("[" * 99_999), CONFIG),
  "another architecture": (damage_config(architecture="temporal"), "temporal"),
  "no architecture": (damage_config(architecture=None), "None"),
  "a list as architecture": (damage_config(architecture=[1]), "architecture"),
  "normalised tokens": (
    damage_config(normalize_activations="layer_norm"),
    "normalize_activations='layer_norm'",
  ),
  "k of text": (damage_config(architecture="topk", k="5"), "k='5'"),
  "truncated": (
    lambda f: (f / FILE).write_bytes((f / FILE).read_bytes()[:-9]),
    "damaged",
  ),
  "a tensor more": (
    damage_arrays(lambda x: x.update(other=np.ones(3, np.float32))),
    "other",
  ),
  "a tensor less": (damage_arrays(lambda x: x.pop("b_dec")), "b_dec"),
  "a wrong shape": (
    damage_arrays(lambda x: x.update(b_enc=x["b_enc"][1:])),
    "b_enc",
  ),
  "whole numbers": (
    damage_arrays(lambda x: x.update(b_enc=x["b_enc"].astype(np.int32))),
    "I32",
  ),
  "not finite": (
    damage_arrays(lambda x: x["W_dec"].__setitem__((0, 0), np.nan)),
    "W_dec",
  ),
  "a negative threshold": (
    damage_arrays(lambda x: x["threshold"].__setitem__(3, -1)),
    "threshold",
  ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_file_is_one_sentence(saved, name):
  damage, told = DAMAGES[name]
  kind = "topk" if name == "k of text" else "jumprelu"
  _, folder = saved(kind, **({"k": 7} if kind == "topk" else {}))
  damage(folder)
  with pytest.raises(UserError) as refused:
    load_sae(folder)
  assert told in str(refused.value) and str(folder) in str(refused.value)
  assert "\n" not in str(refused.value)
