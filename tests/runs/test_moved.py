"""A run is not tied to its paths: what counts is what is found there."""

import dataclasses
import json
import pathlib
import re
import shutil

import numpy as np
import pytest

from jaxsae import runs
from jaxsae.errors import UserError
from jaxsae.mesh import MeshConfig
from jaxsae.train.config.bucket import BucketConfig
from jaxsae.train.loop import train
from tests.train.toys import small

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def moved(tmp_path_factory, texts, lm_path):
  """A run, evaluated, then moved with its text and its language model.

  Returns the config that it was trained with, and its new folder.
  """
  before, after = tmp_path_factory.mktemp("a"), tmp_path_factory.mktemp("b")
  shutil.copytree(texts, before / "texts")
  shutil.copytree(lm_path, before / "lm")
  config = small(before, before / "texts", before / "lm")
  train(config)
  runs.evaluate(runs.open_run(config.workdir))
  for name in ("texts", "lm", "run"):
    shutil.move(before / name, after / name)
  shutil.rmtree(before)
  return config, after


def settings(config, folder) -> runs.RunSettings:
  own = runs.RunSettings.of(config)
  return dataclasses.replace(
    own,
    lm=str(folder / "lm"),
    data=runs.TextPlace(str(folder / "texts"), str(folder / "cache")),
  )


def test_it_is_exported_without_text_or_language_model(moved, tmp_path):
  _, folder = moved
  run = runs.open_run(folder / "run")
  files = runs.export(run, "gemma_scope", tmp_path / "out")
  assert len(files) == len(run.names) == 2


def test_one_autoencoder_is_exported_alone(moved, tmp_path):
  config, folder = moved
  name = config.stacks[0].names[1]
  run = runs.open_run(folder / "run", only=[name])
  assert run.names == (name,)
  assert len(runs.export(run, "gemma_scope", tmp_path / "out")) == 1
  with pytest.raises(UserError, match="did you mean"):
    runs.open_run(folder / "run", only=[name[:-1] + "9"])


def test_it_is_evaluated_and_explored_where_it_is_now(moved):
  config, folder = moved
  record = folder / "run" / "eval" / "6.json"
  before = json.loads(record.read_text())["results"]
  record.unlink()
  run = runs.open_run(folder / "run", settings(config, folder))
  runs.evaluate(run)
  assert json.loads(record.read_text())["results"] == before
  assert runs.explore(run).exists()


def test_the_page_has_the_python_that_loads_each_autoencoder(moved):
  config, folder = moved
  run = runs.open_run(folder / "run", settings(config, folder))
  page = runs.explore(run).read_text()
  index = json.loads(re.search(r'id="index">(.*?)</script>', page)[1])
  assert [sae["name"] for sae in index["saes"]] == list(run.names)
  for sae in index["saes"]:
    found = {}
    exec(sae["load"], found)
    taps, wanted = run.saes[sae["name"]]
    assert found["taps"] == taps
    np.testing.assert_array_equal(found["sae"].w_dec, wanted.w_dec)
    assert found["lm"].config == run.lm.config


def test_without_the_new_place_the_old_one_is_named(moved):
  config, folder = moved
  with pytest.raises(UserError, match=config.lm):
    _ = runs.open_run(folder / "run").lm


def test_another_language_model_is_refused(moved):
  config, folder = moved
  other = dataclasses.replace(settings(config, folder), lm="gemma2-tiny")
  with pytest.raises(UserError, match="another language model"):
    _ = runs.open_run(folder / "run", other).lm


def test_other_text_is_refused(moved, tmp_path):
  config, folder = moved
  for file in (folder / "texts").iterdir():
    (tmp_path / file.name).write_text(file.read_text().upper())
  place = runs.TextPlace(str(tmp_path), str(folder / "cache"))
  other = dataclasses.replace(settings(config, folder), data=place)
  with pytest.raises(UserError, match="other text"):
    runs.evaluate(runs.open_run(folder / "run", other))


def test_it_goes_on_elsewhere_on_another_mesh(moved):
  """With more tokens, and the bucket that it was started with."""
  config, folder = moved
  copy = folder / "copy"
  shutil.copytree(folder / "run", copy)
  place = settings(config, folder)
  state = train(
    dataclasses.replace(
      place.applied(config),
      workdir=str(copy),
      mesh=MeshConfig(data=2, model=4),
      bucket=BucketConfig(),
      tokens=config.tokens + 2 * 512,
    )
  )
  assert int(state.step) == 8
  saved = json.loads(pathlib.Path(copy, "config.json").read_text())
  assert saved["bucket"]["rows"] == 8 and saved["mesh"]["model"] == 4
  assert saved["lm"] == str(folder / "lm") and saved["workdir"] == str(copy)
