"""The losses of prefixes add up, and need one product of F and D."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

from jaxsae.sae import Relu, linear
from jaxsae.sae.interleaving import OWN
from tests.sae.architectures.samples import (
  ALL,
  WIDTH,
  assert_close,
  draw_params,
  draw_tokens,
  make_inputs,
)

PREFIXES = (0.1, 0.25, 0.5)
ENDS = (2, 6, 12, WIDTH)


def plain_encode(x, w_enc, b_enc, centre):
  return (x - centre[None, :]) @ w_enc + b_enc[None, :]


def truncated(latents, w_dec, ends, order=OWN):
  """Decodes each prefix with its own decoder; latents have their own order."""
  assert order == OWN
  return tuple(latents[:, :end] @ w_dec[:end] for end in ends)


@pytest.mark.parametrize("dead", [0, 7])
@pytest.mark.parametrize("name", ALL)
def test_the_loss_and_gradients_are_those_of_truncated_decoders(
  name, dead, monkeypatch
):
  """Automatic differentiation finds the same gradients."""
  with jax.enable_x64(True):
    architecture = ALL[name](prefixes=PREFIXES)
    params = draw_params(architecture, dtype=jnp.float64)
    rows, inputs = draw_tokens(dtype=jnp.float64), make_inputs(dead=dead)
    ours = architecture.gradients(params, rows, inputs)
    monkeypatch.setattr(linear, "encode", plain_encode)
    monkeypatch.setattr(linear, "decode", truncated)
    assert_close(ours, architecture.gradients(params, rows, inputs))


@pytest.mark.parametrize("name", ALL)
def test_each_prefix_adds_the_error_it_has_alone(name):
  with jax.enable_x64(True):
    whole, nested = ALL[name](), ALL[name](prefixes=PREFIXES)
    params = draw_params(whole, dtype=jnp.float64)
    rows, inputs = draw_tokens(dtype=jnp.float64), make_inputs()
    loss, seen = whole.loss(params, rows, inputs)
    if name == "batch_topk":
      threshold = jnp.full(WIDTH, seen.post_update_stats * (1 - 1e-12))
      params = params.replace(threshold=threshold)
    sae = whole.fold(params, 1.0, 1.0, target=inputs.target)
    latents = sae.encode(rows.x)
    more = 0.0
    for end in ENDS[:-1]:
      made = latents[:, :end] @ sae.w_dec[:end] + sae.b_dec[None, :]
      squares = jnp.sum((made - rows.y) ** 2, axis=-1)
      more += jnp.sum(rows.mask * squares) / jnp.sum(rows.mask)
    total, nested_seen = nested.loss(params, rows, inputs)
    assert_close(total - loss, more)
    assert_close(nested_seen.squared_error, seen.squared_error)


@pytest.mark.parametrize("prefixes, ends", [((), (WIDTH,)), (PREFIXES, ENDS)])
def test_shares_of_the_width_become_numbers_of_latents(prefixes, ends):
  """A share has at least one latent."""
  assert Relu(prefixes=prefixes).ends(WIDTH) == ends
  assert Relu(prefixes=(1e-6,)).ends(WIDTH) == (1, WIDTH)


@pytest.mark.parametrize("name", ALL)
def test_prefixes_need_no_additional_products(name, monkeypatch):
  def cost(prefixes):
    architecture = ALL[name](prefixes=prefixes)
    params = architecture.init(jax.random.key(0), 64, 64, 512)
    rows, inputs = draw_tokens(64, tokens=64), make_inputs()
    inputs = inputs.replace(dead=jnp.zeros(512, bool))
    step = jax.jit(lambda p: architecture.gradients(p, rows, inputs)[0])
    return products(jax.make_jaxpr(step)(params).jaxpr)

  once = cost(())
  assert cost((0.25, 0.5, 0.75)) == once > 0
  monkeypatch.setattr(linear, "decode", truncated)
  assert cost((0.25, 0.5, 0.75)) > 1.3 * once


def products(jaxpr):
  """Counts the multiplications in all matrix products of a program."""
  total = 0
  for equation in jaxpr.eqns:
    if equation.primitive.name == "dot_general":
      (contracted, _), _ = equation.params["dimension_numbers"]
      left = equation.invars[0].aval.shape
      depth = np.prod([left[axis] for axis in contracted])
      total += int(np.prod(equation.outvars[0].aval.shape) * depth)
    total += sum(map(products, jaxprs_in_params(equation.params)))
  return total
