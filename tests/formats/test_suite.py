"""Several autoencoders are written to one folder."""

import dataclasses

import numpy as np
import pytest

from jaxsae.errors import UserError
from jaxsae.formats import load_sae, write_all
from jaxsae.lm import Lm, Site, Taps, gemma2_tiny
from jaxsae.sae import JumpRelu
from jaxsae.sae import stack as stacks


def sae(seed):
  made = stacks.init(JumpRelu(threshold=0.1), [seed], 8, 8, 16)
  return stacks.member(made, 0)


SWEEP = [
  (Site("resid", 3), sae(0), 16.2),
  (Site("resid", 3), sae(1), 15.9),  # rounds to the same place
  (Site("mlp", 0), sae(2), 31.7),
]


def test_each_autoencoder_has_its_own_folder(tmp_path):
  files = write_all("gemma_scope", SWEEP, tmp_path / "out")
  assert files == [
    "res/layer_3/width_16/average_l0_16/params.npz",
    "res/layer_3/width_16/average_l0_16_2/params.npz",
    "mlp/layer_0/width_16/average_l0_32/params.npz",
  ]
  for file, (_, written, _) in zip(files, SWEEP, strict=True):
    read = load_sae(tmp_path / "out" / file)
    np.testing.assert_array_equal(read.w_enc, written.w_enc)


def test_a_transcoder_needs_its_language_model(tmp_path):
  sweep = [(Taps.transcoder(0), sae(0), 16.0)]
  with pytest.raises(UserError, match="give lm="):
    write_all("gemma_scope", sweep, tmp_path / "out")
  assert not list(tmp_path.iterdir())


def test_a_transcoder_is_written_as_published(tmp_path):
  gain = 1 + np.arange(8, dtype=np.float32)
  layer = {"pre_ffw_norm": {"scale": gain - 1}}
  config = dataclasses.replace(gemma2_tiny(), num_layers=1)
  lm = Lm({"layer_0": layer}, config)
  sweep = [(Taps.transcoder(0), sae(0), 16.0)]
  (file,) = write_all("gemma_scope", sweep, tmp_path / "out", lm)
  assert file == "transcoder/layer_0/width_16/average_l0_16/params.npz"
  read = load_sae(tmp_path / "out" / file)
  np.testing.assert_allclose(read.w_enc, gain[:, None] * sae(0).w_enc)
  np.testing.assert_array_equal(read.w_dec, sae(0).w_dec)


def test_an_existing_folder_is_refused(tmp_path):
  with pytest.raises(UserError, match="exists"):
    write_all("gemma_scope", SWEEP, tmp_path)


def test_a_failure_leaves_nothing(tmp_path):
  def broken():
    yield SWEEP[0]
    raise RuntimeError("pulled the plug")

  with pytest.raises(RuntimeError):
    write_all("gemma_scope", broken(), tmp_path / "out")
  assert not list(tmp_path.iterdir())


def test_an_unknown_format_names_those_that_are_known(tmp_path):
  with pytest.raises(UserError, match="gemma_scope"):
    write_all("onnx", SWEEP, tmp_path / "out")
