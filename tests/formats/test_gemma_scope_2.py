"""Gemma Scope 2's files are read as published, and written back alike."""

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jaxsae import formats, load_sae
from jaxsae.errors import UserError
from jaxsae.formats import Published
from jaxsae.formats.gemma_scope_2 import CONFIG, FILE, GemmaScope2
from jaxsae.lm import Site, Taps
from jaxsae.origin import origin_of
from jaxsae.sae import Sae

D_IN, D, F = 6, 6, 20
SKIP = "affine_skip_connection"


def arrays(skip=False, seed=0):
  draw = np.random.default_rng(seed).normal
  made = {
    "w_enc": draw(size=(D_IN, F)),
    "b_enc": draw(size=F),
    "w_dec": draw(size=(F, D)),
    "b_dec": draw(size=D),
    "threshold": np.abs(draw(size=F)),
  }
  if skip:
    made[SKIP] = draw(size=(D_IN, D))
  return {name: x.astype(np.float32) for name, x in made.items()}


CONFIGURED = {
  "architecture": "jump_relu",
  "model_name": "gemma-v3-1b-pt",
  "hf_hook_point_in": "model.layers.9.pre_feedforward_layernorm.output",
  "hf_hook_point_out": "model.layers.9.post_feedforward_layernorm.output",
  "width": F,
  "l0": 50,
  "affine_connection": True,
  "type": "transcoder",
}


@pytest.fixture
def published(tmp_path):
  """A transcoder's folder as published, with a skip."""
  folder = tmp_path / "transcoder_all" / "layer_9_width_20_l0_small_affine"
  folder.mkdir(parents=True)
  save_file(arrays(skip=True), folder / FILE)
  (folder / CONFIG).write_text(json.dumps(CONFIGURED))
  return folder


def test_a_published_transcoder_is_read(published):
  found = GemmaScope2().read(published)
  assert found.taps == Taps.transcoder(9)
  assert (found.model, found.metrics) == ("gemma3-1b-pt", {"l0": 50})
  x = np.random.default_rng(1).normal(size=(50, D_IN)).astype(np.float32)
  a = arrays(skip=True)
  pre = x @ a["w_enc"] + a["b_enc"]
  latents = np.where(pre > a["threshold"], np.maximum(pre, 0), 0)
  expected = latents @ a["w_dec"] + a["b_dec"] + x @ a[SKIP]
  np.testing.assert_allclose(load_sae(published)(x), expected, atol=1e-5)
  # It reads what has the gain already, unlike the first Gemma Scope's.
  assert not origin_of(load_sae(published)).before_gain


@pytest.mark.parametrize("path", [FILE, CONFIG, ""])
def test_the_folder_or_a_file_of_it_is_given(published, path):
  assert load_sae(published / path).width == F


def test_without_a_configuration_the_path_tells_the_site(published):
  (published / CONFIG).unlink()
  assert GemmaScope2().read(published).taps == Taps.transcoder(9)


def record(place, skip=False):
  found = arrays(skip)
  w_skip = found.pop(SKIP, None)
  sae = Sae(
    **{name: jnp.asarray(x) for name, x in found.items()},
    w_skip=None if w_skip is None else jnp.asarray(w_skip),
  )
  return Published(
    sae, Taps.of(place), model="gemma3-1b-pt", metrics={"l0": 51.4}
  )


@pytest.mark.parametrize(
  ("place", "skip", "folder"),
  [
    (Site("resid", 3), False, "resid_post/layer_3_width_20_l0_51"),
    (Site("mlp", 3), False, "mlp_out/layer_3_width_20_l0_51"),
    (Site("attn", 0), False, "attn_out/layer_0_width_20_l0_51"),
    (Taps.transcoder(2), False, "transcoder/layer_2_width_20_l0_51"),
    (Taps.transcoder(2), True, "transcoder/layer_2_width_20_l0_51_affine"),
  ],
)
def test_what_is_written_is_read_bit_for_bit(tmp_path, place, skip, folder):
  ours = record(place, skip)
  formats.write_release("gemma_scope_2", [ours], tmp_path / "out")
  again = GemmaScope2().read(tmp_path / "out" / folder)
  assert (again.taps, again.model) == (ours.taps, "gemma3-1b-pt")
  assert again.metrics == ours.metrics
  for field in dataclasses.fields(Sae):
    ours_of, found = (getattr(x.sae, field.name) for x in (ours, again))
    np.testing.assert_array_equal(found, ours_of)
  load_sae(tmp_path / "out" / folder)  # its card agrees


@pytest.mark.parametrize(
  ("place", "told"),
  [("resid.1+resid.2", "resid.1+resid.2"), ("mlp_in.1", "mlp_in.1")],
)
def test_what_has_no_folder_is_not_written(tmp_path, place, told):
  with pytest.raises(UserError, match=told.replace("+", r"\+")):
    formats.write_release("gemma_scope_2", [record(place)], tmp_path / "out")
  assert not list(tmp_path.iterdir())


def changed(**settings):
  return lambda folder: (folder / CONFIG).write_text(
    json.dumps(CONFIGURED | settings)
  )


def changed_arrays(change):
  def damage(folder):
    found = load_file(folder / FILE)
    change(found)
    save_file(found, folder / FILE)

  return damage


DAMAGES = {
  "a crosscoder": (
    changed_arrays(lambda x: x.update(w_dec=np.ones((F, 3, D), np.float32))),
    "W_dec",
  ),
  "another architecture": (changed(architecture="topk"), "'topk'"),
  "an architecture of lists": (changed(architecture=[[]]), "[[]]"),
  "no skip": (changed_arrays(lambda x: x.pop(SKIP)), "affine_connection"),
  "a skip too large": (
    changed_arrays(lambda x: x.update({SKIP: np.ones((9, 9), np.float32)})),
    SKIP,
  ),
  "a skip that is not finite": (
    changed_arrays(lambda x: x[SKIP].__setitem__((0, 0), np.inf)),
    SKIP,
  ),
  "another array": (
    changed_arrays(lambda x: x.update(more=np.ones(2, np.float32))),
    "more",
  ),
  "no JSON": (lambda f: (f / CONFIG).write_text("{"), CONFIG),
  "truncated": (
    lambda f: (f / FILE).write_bytes((f / FILE).read_bytes()[:-1]),
    "damaged",
  ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_file_is_one_sentence(published, name):
  damage, told = DAMAGES[name]
  damage(published)
  with pytest.raises(UserError) as refused:
    load_sae(published)
  assert told in str(refused.value) and str(published) in str(refused.value)
  assert "\n" not in str(refused.value)
