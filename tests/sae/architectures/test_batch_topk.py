"""BatchTopK keeps k latents per token on average, and learns a threshold."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from jaxsae.sae import BatchTopK, Sae, UpdateTokens
from tests.sae.architectures.samples import (
  WIDTH,
  assert_close,
  draw_params,
  draw_tokens,
  make_inputs,
)

BATCH = BatchTopK()


@pytest.mark.parametrize("target", [0.5, 2.0, 4.3])
def test_k_per_token_are_active_on_the_tokens_that_count(target):
  """They are the largest over all tokens."""
  params, rows = draw_params(BATCH), draw_tokens()
  seen = BATCH.loss(params, rows, make_inputs(target=target))[1]
  count = int(target * rows.mask.sum())
  assert jnp.sum(seen.fired) == count
  pre = np.asarray(BATCH.encode(params, rows.x))[np.asarray(rows.mask) > 0]
  least = np.sort(pre, axis=None)[-count]
  assert seen.post_update_stats == least
  np.testing.assert_array_equal(seen.fired, np.sum(pre >= least, axis=0))


def test_all_positive_latents_are_active_if_there_are_fewer():
  params, rows = draw_params(BATCH), draw_tokens()
  seen = BATCH.loss(params, rows, make_inputs(target=WIDTH))[1]
  pre = np.asarray(BATCH.encode(params, rows.x))[np.asarray(rows.mask) > 0]
  np.testing.assert_array_equal(seen.fired, np.sum(pre > 0, axis=0))
  assert seen.post_update_stats == 0


def test_the_first_update_sets_the_threshold_and_others_move_it():
  params = draw_params(BATCH)
  thresholds = []
  for post_update_stats in (2.0, 3.0, jnp.inf, 0.0):
    params = BATCH.post_update(params, jnp.float32(post_update_stats))
    assert jnp.all(params.threshold == params.threshold[0])
    thresholds.append(float(params.threshold[0]))
  np.testing.assert_allclose(
    thresholds, [2, 2.01, 2.01, 0.99 * 2.01], rtol=1e-6
  )


def test_an_update_without_tokens_moves_no_threshold():
  params, rows = draw_params(BATCH), draw_tokens()
  rows = rows.replace(mask=jnp.zeros_like(rows.mask))
  loss, seen = BATCH.loss(params, rows, make_inputs())
  assert loss == 0 and not seen.fired.any()
  moved = BATCH.post_update(
    params.replace(threshold=jnp.ones(WIDTH)), seen.post_update_stats
  )
  np.testing.assert_array_equal(moved.threshold, 1)


def test_folded_to_jumprelu_it_keeps_its_sparsity():
  """Holds for tokens of the same distribution, after some hundred updates."""
  params, inputs, scale = draw_params(BATCH), make_inputs(target=3.0), 5.0

  @jax.jit
  def update(params, rows):
    return BATCH.post_update(
      params, BATCH.loss(params, rows, inputs)[1].post_update_stats
    )

  for seed in range(300):
    params = update(params, draw_tokens(tokens=100, seed=seed))
  folded = BATCH.fold(params, scale, scale, target=inputs.target)
  assert folded.k is None
  raw = scale * draw_tokens(tokens=4000, seed=999).x
  l0 = jnp.mean(jnp.sum(folded.encode(raw) > 0, axis=-1))
  np.testing.assert_allclose(l0, inputs.target, rtol=0.03)


@pytest.mark.parametrize("tokens, latents", [("data", "model"), (None, "both")])
def test_the_sharding_of_tokens_and_latents_does_not_matter(tokens, latents):
  auto = (jax.sharding.AxisType.Auto,) * 2
  mesh = jax.make_mesh((2, 4), ("data", "model"), axis_types=auto)
  latents = ("data", "model") if latents == "both" else latents
  put = lambda *spec: NamedSharding(mesh, PartitionSpec(*spec))
  here = Sae(
    w_enc=put(None, latents),
    b_enc=put(latents),
    w_dec=put(latents, None),
    b_dec=put(),
    threshold=put(latents),
  )
  lie = UpdateTokens(put(tokens, None), put(tokens, None), put(tokens))
  params, rows, inputs = draw_params(BATCH), draw_tokens(), make_inputs(dead=5)
  step = jax.jit(BATCH.gradients)
  alone = step(params, rows, inputs)
  apart = step(jax.device_put(params, here), jax.device_put(rows, lie), inputs)
  np.testing.assert_array_equal(apart[1].fired, alone[1].fired)
  assert_close(apart, alone, rtol=1e-4, atol=1e-5)


def test_what_is_logged():
  params = draw_params(BATCH).replace(threshold=jnp.full(WIDTH, 0.5))
  logged = BATCH.diagnose(params, params, draw_tokens(), make_inputs())
  assert logged == {"threshold": 0.5}
