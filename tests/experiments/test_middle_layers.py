"""Experiments on one layer of Gemma 2 fit the model and run at toy size."""

import json

import jax
import pytest

from jaxsae.lm.weights import read_sizes
from tests.train.toys import init_state

pytestmark = pytest.mark.slow

WHERE = {
  "residual": "resid",
  "mlp": "mlp",
  "attention": "attn",
  "transcoder": "transcoder",
}
LAYERS = {"gemma2_2b": 12, "gemma2_9b": 20, "gemma2_27b": 22}
NAMES = [
  *(
    f"{model}_{kind}"
    for model in ("gemma2_2b", "gemma2_9b")
    for kind in ("residual", "mlp", "attention")
  ),
  "gemma2_2b_transcoder",
  "gemma2_27b_residual",
]
# Site widths D, from the shapes of the published autoencoders.
SIZES = {
  "gemma2_2b": {
    "residual": 2304,
    "mlp": 2304,
    "attention": 2048,
    "transcoder": 2304,
  },
  "gemma2_9b": {"residual": 3584, "mlp": 3584, "attention": 4096},
  "gemma2_27b": {"residual": 4608},
}


@pytest.mark.parametrize("name", NAMES)
def test_a_middle_layer_of_the_published_model(load, name):
  config = load(name)["config"]
  model, _, kind = name.rpartition("_")
  gemma = read_sizes(config.lm)
  (site,) = config.sae.sites
  assert str(site) == f"{WHERE[kind]}.{LAYERS[model]}"
  assert config.lm == f"{model.replace('_', '-')}-pt"
  assert config.workdir == f"runs/{name}"
  state = jax.eval_shape(lambda: init_state(config, gemma))
  count, width = len(config.sae.members), config.sae.widths[0]
  shape = (count, SIZES[model][kind], width)
  assert state.stacks[0].sae.w_enc.shape == shape


@pytest.mark.parametrize("name", NAMES)
def test_the_file_opens_with_its_command_and_claims_no_result(load, name):
  doc = load(name)["__doc__"]
  assert f"python experiments/{name}.py --data.source=DIR" in doc
  assert "Not yet run at full size." in doc


@pytest.mark.parametrize("kind", ("residual", "mlp", "attention"))
def test_experiments_of_each_kind_run_at_toy_size(
  command, small, tmp_path, kind
):
  site = f"{WHERE[kind]}.1"
  status, out, err = command(f"gemma2_2b_{kind}", *small, f"--sae.sites={site}")
  assert status == 0, err
  record = tmp_path / "runs" / f"gemma2_2b_{kind}" / "eval" / "2.json"
  results = json.loads(record.read_text())["results"]
  names = [f"{site}/64/l0_{l0}" for l0 in (4, 8)]
  assert [result["name"] for result in results] == names
  assert all(name in out for name in names)


def test_transcoders_run_at_toy_size(command, small, tmp_path):
  also = ("--also.0.sites=transcoder.1", "--also.0.target_l0=4,8")
  also += ("--also.0.widths=64",)
  status, _, err = command(
    "gemma2_2b_transcoder", *small, "--sae.sites=transcoder.1", *also
  )
  assert status == 0, err
  record = tmp_path / "runs" / "gemma2_2b_transcoder" / "eval" / "2.json"
  results = json.loads(record.read_text())["results"]
  assert [result["name"] for result in results] == [
    "transcoder.1/64/l0_4",
    "transcoder.1/64/l0_8",
    "transcoder.1/64/skip/l0_4",
    "transcoder.1/64/skip/l0_8",
  ]
