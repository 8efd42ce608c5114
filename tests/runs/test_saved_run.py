"""A run that an earlier release left half done is opened and finished.

`tests/saved/run_2026_11` was trained by the code of 2026-11-28 (revision
dcd2e33) on the toy model and the texts of these tests, for six buckets of
which the last checkpoint was removed. It has an autoencoder and a transcoder.
"""

import json
import pathlib
import shutil

import numpy as np
import pytest

from jaxsae.lm import Site, Taps
from jaxsae.runs import open_run
from jaxsae.train.loop import train
from jaxsae.train.process.workdir import read_config
from tests import pods

SAVED = pathlib.Path(__file__).parents[1] / "saved/run_2026_11"


@pytest.fixture
def folder(tmp_path, texts, lm_path):
  """A copy of the run that knows where its model and its text are."""
  folder = tmp_path / "run"
  shutil.copytree(SAVED, folder)
  config = json.loads((folder / "config.json").read_text())
  config |= {"workdir": str(folder), "lm": str(lm_path)}
  config["data"] |= {"source": str(texts), "cache": str(tmp_path / "cache")}
  (folder / "config.json").write_text(json.dumps(config))
  return folder


def test_it_is_opened(folder):
  run = open_run(folder)
  assert run.step == 4
  places = {name: place for name, (place, _) in run.saes.items()}
  assert places == {
    "resid.1/16/l0_2": Taps.of(Site("resid", 1)),
    "transcoder.0/16/l0_2": Taps.transcoder(0),
  }
  for _, sae in run.saes.values():
    assert sae.w_enc.shape == (32, 16)
    norms = np.linalg.norm(sae.w_dec, axis=-1)
    np.testing.assert_allclose(norms, 1, rtol=1e-5)


def test_it_is_gone_on_with_and_learns_what_it_learned(folder):
  config = read_config(folder)
  then = pods.metrics(config)
  state = train(config)
  assert int(state.step) == 6 and open_run(folder).step == 6
  now = pods.metrics(config)
  assert [line["step"] for line in now] == [1, 2, 3, 4, 5, 6]
  for old, new in zip(then[4:], now[4:], strict=True):
    names = [name for name in old if name.rpartition("/")[2] in ("l0", "fvu")]
    assert len(names) == 4
    for name in names:
      assert new[name] == pytest.approx(old[name], rel=1e-4), name
