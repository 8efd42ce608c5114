"""AuxK trains dead latents on the error of the others, and nothing else."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsae.sae import TopK
from jaxsae.sae.architectures import auxk
from tests.sae.architectures.samples import (
  TOKENS,
  WIDTH,
  D,
  assert_close,
  draw_params,
  draw_tokens,
  make_inputs,
)

K = D // 2


def draw(seed=0):
  """Draws pre-activations, directions, an error and a mask."""
  keys = jax.random.split(jax.random.key(seed), 3)
  normal = jax.random.normal
  mask = (jnp.arange(TOKENS) % 3 != 0).astype(jnp.float32)
  pre = normal(keys[0], (TOKENS, WIDTH)) - 1
  return pre, normal(keys[1], (WIDTH, D)), normal(keys[2], (TOKENS, D)), mask


def loss(pre, dead, w_dec, error, mask):
  return auxk.loss(pre, jnp.arange(WIDTH) < dead, w_dec, error, mask)


def insert(drawn, dead):
  pre, *rest = drawn
  return pre, dead, *rest


@pytest.mark.parametrize("dead", [1, K - 1, K, K + 4, WIDTH])
def test_auxk_agrees_with_its_formula(dead):
  """Negative pre-activations are used as they are."""
  pre, w_dec, error, mask = map(np.asarray, draw())
  made = np.zeros_like(error)
  for token in range(TOKENS):
    chosen = np.argsort(pre[token, :dead])[-K:]
    made[token] = pre[token, chosen] @ w_dec[chosen]
  squares = np.sum((made + error) ** 2, axis=1)
  expected = min(dead / K, 1) * np.sum(mask * squares) / mask.sum()
  np.testing.assert_allclose(
    loss(pre, dead, w_dec, error, mask), expected, rtol=1e-5
  )


def test_auxk_is_zero_without_dead_latents():
  value, grads = jax.value_and_grad(loss, (0, 2))(*insert(draw(), 0))
  assert value == 0 and not any(map(jnp.any, grads))


def test_only_dead_latents_have_gradients_of_auxk():
  dead = 7
  of_pre, of_w, of_error = jax.grad(loss, (0, 2, 3))(*insert(draw(), dead))
  assert of_pre[:, :dead].any() and not of_pre[:, dead:].any()
  assert of_w[:dead].any() and not of_w[dead:].any()
  assert not of_error.any()


def test_auxk_is_zero_if_dead_latents_reconstruct_the_error():
  """The loss of ê = e is 0."""
  pre, w_dec, _, mask = draw()
  dead = K
  error = -pre[:, :dead] @ w_dec[:dead]
  np.testing.assert_allclose(loss(pre, dead, w_dec, error, mask), 0, atol=1e-6)


def test_the_weight_of_auxk_in_the_loss():
  params, rows, inputs = draw_params(TopK()), draw_tokens(), make_inputs(dead=8)
  values = [TopK(auxk=a).loss(params, rows, inputs)[0] for a in (0.0, 0.5, 1.0)]
  assert values[0] < values[1]
  np.testing.assert_allclose(
    values[2] - values[1], values[1] - values[0], rtol=1e-3
  )


def test_a_stack_computes_it_only_where_a_member_has_dead_latents():
  """One branch is chosen for the whole stack, whose members differ."""
  stacks = [jnp.stack(x) for x in zip(draw(0), draw(1), strict=True)]
  many = jax.vmap(lambda dead, *rest: auxk.loss(rest[0], dead, *rest[1:]))
  dead = jnp.arange(WIDTH)[None, :] < jnp.array([[0], [5]])
  grads = jax.grad(lambda pre, *rest: jnp.sum(many(dead, pre, *rest)), (0, 1))
  program = str(jax.make_jaxpr(grads)(*stacks))
  assert program.count("cond[") == 2  # there and back
  found = many(dead, *stacks)
  assert_close(found[1], loss(*insert(draw(1), 5)), rtol=1e-5)
  assert found[0] == 0
  assert not grads(*stacks)[0][0].any() and grads(*stacks)[0][1].any()
