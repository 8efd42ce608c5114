"""The count of a forward pass's FLOPs, held against XLA's own."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from jaxsae.lm import GemmaConfig, Lm, Site, capture, init_params
from jaxsae.lm.flops import blocks_to, forward_flops_per_token

# Attention to whole rows would be half as much again, far beyond the tolerance.
TOY = GemmaConfig(
  vocab_size=64,
  num_layers=3,
  embed_dim=256,
  hidden_dim=1024,
  num_heads=4,
  num_kv_heads=2,
  head_dim=128,
  query_pre_attn_scalar=128,
  attn_softcap=None,
)


@pytest.mark.parametrize("where", ["attn", "mlp_in", "resid"])
def test_xla_counts_as_many_and_at_most_a_tenth_more(where):
  """XLA adds elementwise operations, and the masked corners of blocks."""
  site, context = Site(where, 1), 1024
  params = jax.eval_shape(lambda: init_params(TOY, jax.random.key(0)))
  rows = jax.ShapeDtypeStruct((1, context), jnp.int32)
  read = jax.jit(lambda params, rows: capture(Lm(params, TOY), rows, site))
  compiled = read.lower(params, rows).compile()
  counted = compiled.cost_analysis()["flops"] / context
  assert counted == pytest.approx(
    forward_flops_per_token(TOY, (site,), context), rel=0.1
  )


def test_the_last_block_runs_up_to_the_last_site():
  sites = (Site("resid", 0), Site("attn", 2), Site("mlp_in", 2))
  assert blocks_to(sites) == [(0, "resid"), (1, "resid"), (2, "mlp_in")]


def test_a_window_limits_what_a_local_layer_sees():
  """With it, a query of layer 0 sees 128 keys at most, one of layer 1 all."""
  toy = dataclasses.replace(TOY, window=128)
  short, long = (
    [
      forward_flops_per_token(toy, (Site("attn", layer),), context)
      for layer in (0, 1)
    ]
    for context in (2048, 4096)
  )
  assert long[0] - short[0] < 4 * 512 * 4
  assert long[1] - long[0] - (short[1] - short[0]) == 4 * 512 * 1024
