"""The count of an update's FLOPs, held against XLA's own."""

import jax
import jax.numpy as jnp
import pytest

from jaxsae.sae import Relu
from jaxsae.sae.architectures.architecture import UpdateInputs, UpdateTokens
from jaxsae.sae.flops import update_flops_per_token

N, D_IN, D, F = 256, 192, 128, 1024


@pytest.mark.parametrize("skip", [False, True])
def test_xla_counts_as_many_in_an_update(skip):
  """XLA adds elementwise operations: within a twentieth."""
  kind = Relu(transcodes=True, skip=skip)
  params = jax.eval_shape(lambda: kind.init(jax.random.key(0), D_IN, D, F))
  array = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.float32)
  tokens = UpdateTokens(array(N, D_IN), array(N, D), array(N))
  inputs = UpdateInputs(array(), array(), jax.ShapeDtypeStruct((F,), jnp.bool_))
  compiled = jax.jit(kind.gradients).lower(params, tokens, inputs).compile()
  counted = compiled.cost_analysis()["flops"] / N
  expected = update_flops_per_token(D_IN, D, F, skip)
  assert counted == pytest.approx(expected, rel=0.05)


def test_a_skip_is_counted():
  plain = update_flops_per_token(D_IN, D, F)
  assert plain == F * (4 * D_IN + 6 * D)
  assert update_flops_per_token(D_IN, D, F, skip=True) - plain == 4 * D_IN * D
