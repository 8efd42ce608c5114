"""FLOPs agree with the arrays and with the compiler; shares are balanced."""

import jax
import jax.numpy as jnp
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.sharding import AbstractMesh

from jaxsae.data import DataConfig
from jaxsae.errors import UserError
from jaxsae.lm import Lm, Site, capture, init_params
from jaxsae.lm.weights import read_sizes
from jaxsae.plan import lm_work
from jaxsae.runs.flops import RunFlops, balanced_shares, run_flops
from jaxsae.train.config.run import SweepConfig, TrainConfig
from tests.train.toys import init_state

pytestmark = pytest.mark.slow


def test_parameters_are_those_of_the_arrays(config):
  gemma = read_sizes(config.lm)
  state = jax.eval_shape(lambda: init_state(config, gemma))
  arrays = jax.tree.leaves([stack.sae for stack in state.stacks])
  found = run_flops(config, gemma)
  assert found.parameters == sum(x.size for x in arrays)
  assert found.saes == 4


def test_flops_agree_with_the_papers_example():
  """The example is width 131K, a batch of 4096, a site of the 9B (§3.3.1).

  The paper counts 6 per weight, 12·D·F; 10·D·F of these are computed.
  """
  sweep = SweepConfig(sites=(Site("resid", 20),), widths=(2**17,))
  found = run_flops(
    TrainConfig(tokens=4096, sae=sweep), read_sizes("gemma2-9b-pt")
  )
  assert found.sae_flops == pytest.approx(2.309e13 * 10 / 12, rel=1e-3)


@pytest.mark.parametrize("context", [256, 1024])
@pytest.mark.parametrize("name", ["gemma2-2b-pt", "gemma2-27b-it"])
def test_a_forward_pass_has_the_flops_that_the_compiler_counts(name, context):
  gemma, site = read_sizes(name), Site("resid", 3)
  init = lambda key: init_params(gemma, key)
  lm = Lm(jax.eval_shape(init, jax.random.key(0)), gemma)
  rows = jax.ShapeDtypeStruct((2, context), jnp.int32)
  read = jax.jit(lambda lm, rows: capture(lm, rows, site))
  counted = read.lower(lm, rows).cost_analysis()["flops"]
  config = TrainConfig(
    tokens=2 * context,
    data=DataConfig(context=context),
    sae=SweepConfig(sites=(site,)),
  )
  assert run_flops(config, gemma).lm_flops == pytest.approx(counted, rel=0.03)


@pytest.mark.parametrize("where", ["attn", "mlp_in", "mlp", "resid"])
def test_a_listing_and_a_plan_count_the_same_flops(config, replace, where):
  config = replace(config, sae__sites=(Site(where, 1),))
  config = replace(config, tokens=3 * config.bucket_tokens)
  gemma, mesh = read_sizes(config.lm), AbstractMesh((1, 1), ("data", "model"))
  planned = lm_work.work(config, gemma, mesh).flops
  assert run_flops(config, gemma).lm_flops == pytest.approx(3 * planned)


def test_sites_of_one_run_share_its_forward_passes(config, replace):
  gemma = read_sizes(config.lm)
  one = replace(config, sae__sites=(Site("resid", 1),))
  two = replace(config, sae__sites=(Site("resid", 1), Site("mlp", 1)))
  one, two = run_flops(one, gemma), run_flops(two, gemma)
  assert two.lm_flops == one.lm_flops
  assert two.sae_flops == 2 * one.sae_flops
  assert one + two == RunFlops(
    6, one.parameters + two.parameters, 3 * one.sae_flops, 2 * one.lm_flops
  )


def test_a_site_that_the_model_lacks_is_an_error(config, replace):
  config = replace(config, sae__sites=(Site("resid", 2),))
  with pytest.raises(UserError, match=r"resid\.2 .* layers 0 to 1"):
    run_flops(config, read_sizes(config.lm))


@given(st.lists(st.integers(1, 10**23), max_size=40), st.integers(1, 12))
def test_each_run_is_in_one_share_and_shares_are_balanced(flops, count):
  flops = {f"run {i}": size for i, size in enumerate(flops)}
  found = balanced_shares(flops, count)
  assert len(found) == count
  assert sorted(name for share in found for name in share) == sorted(flops)
  loads = [sum(flops[name] for name in share) for share in found]
  assert max(loads) * count <= sum(loads) + max(flops.values(), default=0) * (
    count - 1
  )


def test_a_share_is_in_the_order_of_the_runs():
  flops = {"c": 1, "a": 5, "b": 3, "d": 1}
  assert balanced_shares(flops, 1) == [["c", "a", "b", "d"]]
  assert balanced_shares(flops, 2) == [["a"], ["c", "b", "d"]]
