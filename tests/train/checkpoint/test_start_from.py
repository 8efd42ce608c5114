"""A run can start from the autoencoders of another, and from nothing else."""

import json
import pathlib
import shutil

import jax
import numpy as np
import pytest

from jaxsae.errors import UserError
from jaxsae.lm import Site
from jaxsae.train.checkpoint import start_from
from jaxsae.train.loop import train
from tests.train.checkpoint.test_corruption import bits, flip_weights, snapshot
from tests.train.toys import start

pytestmark = pytest.mark.slow


@pytest.fixture
def config(made, replace, tmp_path):
  """Makes a config with other targets and another seed."""
  return replace(
    made.config,
    workdir=str(tmp_path / "run"),
    sae__target_l0=(2.0, 3.0),
    data__seed=5,
    start_from=made.config.workdir,
  )


def test_autoencoders_and_scales_are_taken_and_nothing_else(made, config):
  last, _ = made.states[6]
  mesh, source, fresh = start(config)
  state = start_from.take(config, mesh, source.weights, fresh)
  (mine,), (theirs,), (random,) = state.stacks, last.stacks, fresh.stacks
  assert bits(mine.sae) == bits(theirs.sae) != bits(random.sae)
  assert bits(mine.scale) == bits(theirs.scale) != bits(random.scale)
  assert bits(mine.target_scale) == bits(theirs.target_scale)
  assert bits(mine.moments) == bits(random.moments) != bits(theirs.moments)
  assert not np.any(mine.tokens_since_fired) and int(state.step) == 0
  assert bits(state.key) == bits(fresh.key) != bits(last.key)
  for x, y in zip(jax.tree.leaves(state), jax.tree.leaves(fresh), strict=True):
    assert x.sharding == y.sharding


def first_line(folder) -> dict:
  return json.loads((folder / "metrics.jsonl").read_text().splitlines()[0])


def test_a_run_that_has_started_no_longer_needs_the_other(
  made, config, replace, tmp_path, capsys
):
  shutil.copytree(made.path, tmp_path / "other")
  config = replace(config, start_from=str(tmp_path / "other"))
  before = snapshot(tmp_path / "other")
  state = train(config)
  assert "starts from" in capsys.readouterr().out
  assert snapshot(tmp_path / "other") == before
  mine, random = first_line(tmp_path / "run"), first_line(made.path)
  assert mine["step"] == 1
  assert mine["resid.1/128/l0_3/fvu"] < random["resid.1/128/l0_4/fvu"]
  shutil.rmtree(tmp_path / "other")
  shutil.rmtree(tmp_path / "run" / "checkpoints" / "6")
  assert bits(train(config)) == bits(state)
  assert "starts from" not in capsys.readouterr().out
  with pytest.raises(UserError, match="start_from was"):
    train(replace(config, start_from=None))


@pytest.mark.parametrize(
  ("change", "says"),
  [
    ({"sae__widths": (256,)}, "no 2 jumprelu of width 256 at resid.1"),
    ({"sae__target_l0": (2.0,)}, "no 1 jumprelu of width 128 at resid.1"),
    (
      {"sae__sites": (Site("attn", 0),)},
      "no 2 jumprelu of width 128 at attn.0",
    ),
    ({"sae__architecture": "topk"}, "no 2 topk of width 128 at resid.1"),
  ],
)
def test_a_run_that_does_not_fit_is_refused(config, replace, change, says):
  if "sae__architecture" in change:
    change |= {"sae__penalty": "l0"}
  with pytest.raises(UserError) as refused:
    train(replace(config, **change))
  assert says in str(refused.value)
  assert "it has 2 jumprelu of width 128 at resid.1" in str(refused.value)
  assert not pathlib.Path(config.workdir).exists()


def test_a_folder_that_is_not_a_run_is_refused(config, replace, tmp_path):
  with pytest.raises(UserError, match="nowhere is not a run"):
    train(replace(config, start_from=str(tmp_path / "nowhere")))
  assert not pathlib.Path(config.workdir).exists()


def test_a_run_without_a_checkpoint_is_refused(made, config, replace, tmp_path):
  shutil.copytree(made.path, tmp_path / "new")
  shutil.rmtree(tmp_path / "new" / "checkpoints")
  with pytest.raises(UserError, match="new has no checkpoint yet"):
    train(replace(config, start_from=str(tmp_path / "new")))
  assert not pathlib.Path(config.workdir).exists()


def test_a_corrupted_checkpoint_is_skipped(
  made, config, replace, tmp_path, capsys
):
  shutil.copytree(made.path, tmp_path / "other")
  flip_weights(tmp_path / "other" / "checkpoints" / "6")
  before = snapshot(tmp_path / "other")
  config = replace(config, start_from=str(tmp_path / "other"))
  mesh, source, fresh = start(config)
  state = start_from.take(config, mesh, source.weights, fresh)
  assert bits(state.stacks[0].sae) == bits(made.states[4][0].stacks[0].sae)
  said = capsys.readouterr()
  assert "at step 4" in said.out and "checkpoint 6" in said.err
  assert snapshot(tmp_path / "other") == before
