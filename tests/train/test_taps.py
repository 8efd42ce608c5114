"""Autoencoders of several sites, from training to the loss when spliced in."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxsae.evals import evaluate
from jaxsae.lm import Taps, capture, edit, next_token_loss, splice
from jaxsae.mesh import MeshConfig
from jaxsae.runs import open_run
from jaxsae.token_batch import TokenBatch
from jaxsae.train.loop import train
from tests.train.toys import curve

pytestmark = pytest.mark.slow

BOTH = Taps.parse("resid.0+resid.1")  # not causal: reads after it writes
ACROSS = Taps.parse("mlp_in.0:mlp.0+mlp.1")


def test_every_placement_trains_them_to_the_same(config, replace):
  both = replace(config, sae__sites=(BOTH, ACROSS))
  expected, state = curve(replace(both, mesh=MeshConfig(1, 1)))
  assert np.isfinite(expected).all()
  assert (expected[-1, :, 2] < expected[0, :, 2]).all()  # FVU
  crosscoder, transcoder = state.stacks
  assert crosscoder.sae.w_enc.shape == (2, 64, 64)
  assert crosscoder.scale.shape == crosscoder.target_scale.shape == (2, 2)
  assert transcoder.scale.shape == (2,)
  assert transcoder.target_scale.shape == (2, 2)
  for placement in ("by_sae", "by_latent"):
    placed = replace(both, mesh=MeshConfig(4, 2), sae__placement=placement)
    np.testing.assert_allclose(curve(placed)[0], expected, rtol=2e-3)


@pytest.fixture
def run(config, replace):
  """A finished run of autoencoders of both kinds."""
  config = replace(
    config, sae__sites=(BOTH, ACROSS), sae__target_l0=(8.0,), tokens=1024
  )
  train(config)
  return open_run(config.workdir)


@pytest.fixture
def batch(run):
  tokens = np.arange(64, dtype=np.int32).reshape(4, 16) + 40
  return TokenBatch(
    documents=np.zeros_like(tokens),
    positions=np.broadcast_to(np.arange(16, dtype=np.int32), tokens.shape),
    segments=np.ones_like(tokens),
    tokens=tokens,
  )


def test_a_run_is_opened_and_its_figures_are_those_by_hand(run, batch):
  found = evaluate(run.lm, run.saes, lambda: [batch], loss_batches=1)
  assert [result.to_json()["site"] for result in found.values()] == [
    "resid.0+resid.1",
    "mlp_in.0:mlp.0+mlp.1",
  ]
  for name, (taps, sae) in run.saes.items():
    norms = np.linalg.norm(sae.w_dec, axis=-1)
    np.testing.assert_allclose(norms, 1, rtol=1e-4)
    seen = capture(run.lm, batch.tokens, *taps.sites)
    x, y = taps.read(seen), taps.written(seen)
    error = np.square(y - sae(x)).sum()
    expected = error / np.square(y - y.mean((0, 1))[None, None]).sum()
    np.testing.assert_allclose(found[name].fvu, expected, rtol=1e-3)
    parts = np.split(np.asarray(sae(x)), 2, axis=-1)
    patches = {
      site: lambda _, part=part: jnp.asarray(part)
      for site, part in zip(taps.writes, parts, strict=True)
    }
    by_hand = edit(run.lm, batch.tokens, patches)
    spliced = edit(run.lm, batch.tokens, splice(taps, sae))
    np.testing.assert_allclose(spliced, by_hand, atol=2e-5)
    losses, mask = next_token_loss(by_hand, batch.tokens, batch.segments)
    loss = losses.sum() / mask.sum()
    np.testing.assert_allclose(found[name].spliced_loss, loss, rtol=1e-4)
    assert found[name].zero_loss != found[name].clean_loss
