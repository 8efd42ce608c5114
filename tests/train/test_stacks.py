"""Stacks trained in one step end as each does alone."""

import dataclasses

import numpy as np
import pytest

from jaxsae import runs, train
from jaxsae.errors import UserError
from jaxsae.lm import Site, Taps
from jaxsae.mesh import MeshConfig
from jaxsae.runs.open import open_run
from jaxsae.train import SweepConfig
from tests.train.toys import make_config, some_buckets

pytestmark = pytest.mark.slow

RESID = Site("resid", 1)
TRANSCODER = Taps.transcoder(0)
# Both ways to train all of them have this mesh, so the step, which takes a
# minute to compile, is compiled once.
MESH = MeshConfig(data=2, model=1)


def sweeps(config) -> dict[str, SweepConfig]:
  """One of each kind, all of the toy's width and optimiser."""
  change = lambda **fields: dataclasses.replace(config.sae, **fields)
  free = {"penalty": "l0", "target_l0": (), "sites": (RESID,)}
  return {
    "rates and seeds": change(
      name="many", learning_rates=(1e-3, 3e-3), seeds=(0, 1)
    ),
    "topk": change(architecture="topk", sites=(RESID,)),
    "batch_topk": change(architecture="batch_topk", wake_after=100),
    "free_jumprelu": change(architecture="free_jumprelu"),
    "relu": change(architecture="relu", **free),
    "gated": change(architecture="gated", **free),
    "matryoshka": change(name="nested", prefixes=(0.25, 0.5)),
    "transcoder": change(sites=(TRANSCODER,), skip=True),
    "another width": change(widths=(32,)),
  }


@pytest.fixture(scope="module")
def everything(tmp_path_factory, texts, lm_path):
  """All of them in one step, on two devices."""
  config = make_config(tmp_path_factory.mktemp("stacks"), texts, lm_path)
  also = tuple(sweeps(config).values())
  return dataclasses.replace(config, mesh=MESH, also=also)


def figures(config, buckets=2):
  """Name → loss, L0 and FVU in each bucket."""
  seen, _ = some_buckets(config, buckets)
  return {
    name: [[b[s].loss[i], b[s].l0[i], b[s].fvu[i]] for b in seen]
    for s, stack in enumerate(config.stacks)
    for i, name in enumerate(stack.names)
  }


@pytest.fixture(scope="module")
def together(everything):
  return figures(everything)


def test_each_stack_trains_as_it_does_alone(everything, together):
  assert len(together) == 4 + 16 + 2 + 4 + 4 + 1 + 1 + 4 + 2 + 4
  for sweep in everything.also:
    alone = figures(dataclasses.replace(everything, sae=sweep, also=()))
    for name, found in alone.items():
      np.testing.assert_allclose(found, together[name], rtol=2e-3, err_msg=name)


def test_every_stack_learns(together):
  for name, (first, *_, last) in together.items():
    assert np.isfinite(last).all(), name
    assert last[2] < first[2], name  # FVU


def test_rates_and_seeds_make_a_difference(together):
  of = lambda name: np.array(together[f"resid.1/64/many/l0_4_{name}"])
  base = of("lr_0.003_seed_0")
  for other in ("lr_0.001_seed_0", "lr_0.003_seed_1"):
    assert not np.allclose(of(other), base, rtol=1e-2), other
  np.testing.assert_allclose(base, together["resid.1/64/l0_4"], rtol=2e-3)


def test_a_run_of_all_is_judged_and_exported(everything, tmp_path):
  train.train(everything)
  run = open_run(everything.workdir)
  results = runs.evaluate(run)
  assert results.keys() == run.saes.keys()
  for name, result in results.items():
    assert 0 < result.fvu < 1 and np.isfinite(result.delta_loss), name
  for k in (4, 8):  # each token has its k, or fewer where fewer are positive
    assert 0.9 * k < results[f"resid.1/64/topk/l0_{k}"].l0 <= k
  with pytest.raises(UserError, match="TopK"):
    runs.export(run, "gemma_scope", tmp_path / "out")
  assert not (tmp_path / "out").exists()


def test_names_that_are_the_same_are_refused(config):
  with pytest.raises(UserError, match="Two autoencoders would be called"):
    dataclasses.replace(config, also=(config.sae,))
