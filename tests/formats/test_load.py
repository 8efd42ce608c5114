"""`load_sae` loads an autoencoder from a file or a folder."""

import numpy as np
import pytest

from jaxsae.errors import UserError
from jaxsae.formats import gemma_scope, load_sae
from jaxsae.sae import JumpRelu
from jaxsae.sae.stack import init, member


@pytest.fixture
def sae():
  return member(init(JumpRelu(threshold=0.1), [0], 4, 4, 16), 0)


@pytest.mark.parametrize("ask", ["params.npz", "."])
def test_a_file_and_its_folder_are_the_same(sae, tmp_path, ask):
  gemma_scope.write(sae, tmp_path / "params.npz")
  for given in (tmp_path / ask, str(tmp_path / ask)):
    np.testing.assert_array_equal(load_sae(given).w_dec, sae.w_dec)


def test_a_file_may_have_another_name(sae, tmp_path):
  gemma_scope.write(sae, tmp_path / "mine.npz")
  assert load_sae(tmp_path / "mine.npz").width == 16


def test_the_error_about_a_missing_path_lists_what_loads(tmp_path):
  with pytest.raises(UserError, match=r"nowhere does not exist; give .*\.npz"):
    load_sae(tmp_path / "nowhere")


def test_the_error_about_an_empty_folder_lists_what_loads(sae, tmp_path):
  gemma_scope.write(sae, tmp_path / "deeper" / "params.npz")
  with pytest.raises(UserError, match=r"not an autoencoder; .*params\.npz"):
    load_sae(tmp_path)


def test_the_error_about_another_kind_of_file_lists_what_loads(tmp_path):
  (tmp_path / "ae.pt").write_bytes(b"PK")
  with pytest.raises(UserError, match=r"ae\.pt is not an autoencoder; give"):
    load_sae(tmp_path / "ae.pt")
