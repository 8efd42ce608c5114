"""Sparsify's files are read as its own code computes them."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from jaxsae import formats, load_sae
from jaxsae.errors import UserError
from jaxsae.formats.sparsify import CONFIG, FILE, Sparsify
from jaxsae.lm import Site, Taps
from tests.formats.test_gemma_scope_2 import record

D, F, K = 6, 30, 4


def arrays(skip=False):
  draw = np.random.default_rng(0).normal
  made = {
    "encoder.weight": draw(size=(F, D)),
    "encoder.bias": draw(size=F),
    "W_dec": draw(size=(F, D)),
    "b_dec": draw(size=D),
  }
  if skip:
    made["W_skip"] = draw(size=(D, D))
  return {name: x.astype(np.float32) for name, x in made.items()}


@pytest.fixture
def saved(tmp_path):
  """`saved(…)`: a folder as sparsify writes it."""

  def of(name="layers.3", change=lambda arrays: None, **settings):
    config = {
      "activation": "topk",
      "expansion_factor": 5,
      "normalize_decoder": True,
      "num_latents": 0,
      "k": K,
      "multi_topk": False,
      "skip_connection": False,
      "transcode": False,
      "d_in": D,
    } | settings
    found = arrays(config["skip_connection"])
    change(found)
    folder = tmp_path / name
    folder.mkdir()
    save_file(found, folder / FILE)
    (folder / CONFIG).write_text(json.dumps(config))
    return folder

  return of


@pytest.mark.parametrize("transcode", [False, True])
@pytest.mark.parametrize("skip", [False, True])
def test_it_computes_what_sparsify_does(saved, transcode, skip):
  folder = saved(transcode=transcode, skip_connection=skip)
  x = np.random.default_rng(1).normal(size=(40, D)).astype(np.float32)
  a = arrays(skip)
  centred = x if transcode else x - a["b_dec"]
  pre = np.maximum(centred @ a["encoder.weight"].T + a["encoder.bias"], 0)
  least = np.sort(pre, axis=1)[:, -K][:, None]
  latents = np.where(pre >= least, pre, 0)
  expected = latents @ a["W_dec"] + a["b_dec"]
  if skip:
    expected = expected + x @ a["W_skip"].T
  ours = load_sae(folder)
  np.testing.assert_allclose(ours.encode(x), latents, atol=1e-5)
  np.testing.assert_allclose(ours(x), expected, atol=2e-5)


@pytest.mark.parametrize(
  ("name", "taps"),
  [("layers.3", Taps.of(Site("resid", 3))), ("layers.3.mlp", None)],
)
def test_the_folders_name_tells_the_site(saved, name, taps):
  found = Sparsify().read(saved(name))
  assert found.taps == taps and found.metrics == {"l0": K}


def test_it_is_not_written(tmp_path):
  with pytest.raises(UserError, match="only read"):
    formats.write_release(
      "sparsify", [record(Site("resid", 1))], tmp_path / "out"
    )
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
  ("settings", "told"),
  [
    ({"activation": "groupmax"}, "groupmax"),
    ({"activation": ["topk"]}, "activation"),
    ({"k": 31}, "k=31"),
    ({"k": True}, "k=True"),
    ({"k": None}, "k=None"),
    ({"change": lambda x: x.pop("W_dec")}, "W_dec"),
    ({"change": lambda x: x.update(b_dec=np.ones(5, np.float32))}, "b_dec"),
    (
      {"change": lambda x: x.update(W_skip=np.ones((2, D), np.float32))},
      "W_skip",
    ),
    ({"change": lambda x: x["b_dec"].fill(np.nan)}, "b_dec"),
  ],
)
def test_a_damaged_file_is_one_sentence(saved, settings, told):
  folder = saved(**settings)
  with pytest.raises(UserError) as refused:
    load_sae(folder)
  assert told in str(refused.value) and str(folder) in str(refused.value)
  assert "\n" not in str(refused.value)
