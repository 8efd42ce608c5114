"""The loss and all its gradients agree with SAELens, in float64.

Where SAELens' is defined otherwise, both are brought to one form: see each
test. Decoders have directions of any norm, so SAELens does not rescale by them.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsae.sae import (
  BatchTopK,
  Gated,
  GatedSae,
  Relu,
  Sae,
  TopK,
  UpdateInputs,
  UpdateTokens,
)
from tests.libraries import need

torch = need("torch")
need("sae_lens")
base = need("sae_lens.saes.sae")
standard = need("sae_lens.saes.standard_sae")
gated = need("sae_lens.saes.gated_sae")
topk = need("sae_lens.saes.topk_sae")
batchtopk = need("sae_lens.saes.batchtopk_sae")
matryoshka = need("sae_lens.saes.matryoshka_batchtopk_sae")

D, WIDTH, TOKENS = 6, 24, 100
COEFFICIENT, K = 0.07, 4
BY_RANK = {
  "k": K,
  "aux_loss_coefficient": 1 / 32,
  "rescale_acts_by_decoder_norm": False,
}
DEAD = [0, 2, 9]  # none, fewer than D/2, more


def draw(*vectors):
  """Draws parameters by SAELens' names, and tokens."""
  rng = np.random.default_rng(0)
  params = {
    "W_enc": rng.normal(size=(D, WIDTH)) / np.sqrt(D),
    "W_dec": rng.normal(size=(WIDTH, D)) / np.sqrt(D),
    "b_dec": 0.2 * rng.normal(size=D),
  }
  params |= {name: 0.3 * rng.normal(size=WIDTH) for name in vectors}
  return params, rng.normal(size=(TOKENS, D))


def theirs(kind, config, params, x, dead=0, **fields):
  """Returns SAELens' autoencoder after a backward pass, and its output."""
  sae = kind(
    config(
      d_in=D,
      d_sae=WIDTH,
      dtype="float64",
      device="cpu",
      apply_b_dec_to_input=True,
      normalize_activations="none",
      **fields,
    )
  )
  for name, value in params.items():
    sae._parameters[name] = torch.nn.Parameter(torch.tensor(value))
  out = sae.training_forward_pass(
    base.TrainStepInput(
      sae_in=torch.tensor(x),
      coefficients={"l1": COEFFICIENT},
      dead_neuron_mask=torch.arange(WIDTH) < dead,
      n_training_steps=0,
      is_logging_step=False,
    )
  )
  out.loss.backward()
  return sae, out


def ours(architecture, kind, params, x, dead=0):
  """Returns our loss, gradients by SAELens' names, and post-update stats."""
  names = {name: name.lower() for name in params}
  given = {names[name]: jnp.asarray(value) for name, value in params.items()}
  if kind is Sae:
    given["threshold"] = jnp.zeros(WIDTH)
  rows = UpdateTokens(jnp.asarray(x), jnp.asarray(x), jnp.ones(len(x)))
  inputs = UpdateInputs(
    jnp.asarray(COEFFICIENT), jnp.asarray(float(K)), jnp.arange(WIDTH) < dead
  )
  grads, seen = architecture.gradients(kind(**given), rows, inputs)
  found = {name: np.asarray(getattr(grads, names[name])) for name in params}
  return seen.loss / seen.tokens, found, seen.post_update_stats


def assert_equal(sae, out, loss, grads):
  np.testing.assert_allclose(loss, out.loss.item(), rtol=1e-12)
  for name, grad in grads.items():
    assert grad.dtype == np.float64 and np.any(grad), name
    np.testing.assert_allclose(
      grad,
      getattr(sae, name).grad.numpy(),
      rtol=1e-9,
      atol=1e-9 * np.max(np.abs(grad)),
      err_msg=name,
    )


def test_relu():
  params, x = draw("b_enc")
  sae, out = theirs(
    standard.StandardTrainingSAE, standard.StandardTrainingSAEConfig, params, x
  )
  with jax.enable_x64(True):
    loss, grads, _ = ours(Relu(), Sae, params, x)
  assert_equal(sae, out, loss, grads)


def test_gated():
  """SAELens' auxiliary reconstruction also trains the decoder.

  The paper's does not (arXiv 2404.16014 §3.2). So its gradient of W_dec and
  b_dec is taken out of theirs; the value of the loss is one.
  """
  params, x = draw("r_mag", "b_gate", "b_mag")
  sae, out = theirs(
    gated.GatedTrainingSAE, gated.GatedTrainingSAEConfig, params, x
  )
  centred = x - params["b_dec"]
  gate = np.maximum(centred @ params["W_enc"] + params["b_gate"], 0)
  error = gate @ params["W_dec"] + params["b_dec"] - x
  sae.W_dec.grad -= torch.tensor(2 * gate.T @ error / TOKENS)
  sae.b_dec.grad -= torch.tensor(2 * np.mean(error, axis=0))
  with jax.enable_x64(True):
    loss, grads, _ = ours(Gated(), GatedSae, params, x)
  assert_equal(sae, out, loss, grads)


@pytest.mark.parametrize("dead", DEAD)
def test_topk(dead):
  params, x = draw("b_enc")
  sae, out = theirs(
    topk.TopKTrainingSAE,
    topk.TopKTrainingSAEConfig,
    params,
    x,
    dead,
    **BY_RANK,
  )
  with jax.enable_x64(True):
    loss, grads, _ = ours(TopK(), Sae, params, x, dead)
  assert_equal(sae, out, loss, grads)


@pytest.mark.parametrize("dead", DEAD)
def test_batch_topk(dead):
  """Their threshold starts at 0 and moves by 1 %; the first sets ours."""
  params, x = draw("b_enc")
  sae, out = theirs(
    batchtopk.BatchTopKTrainingSAE,
    batchtopk.BatchTopKTrainingSAEConfig,
    params,
    x,
    dead,
    **BY_RANK,
  )
  with jax.enable_x64(True):
    loss, grads, post_update_stats = ours(BatchTopK(), Sae, params, x, dead)
    assert_equal(sae, out, loss, grads)
    np.testing.assert_allclose(
      0.01 * post_update_stats, sae.topk_threshold, rtol=1e-12
    )

    moved = Sae(*(jnp.ones((1, 1)),) * 4, threshold=jnp.full(1, 0.9))
    moved = BatchTopK().post_update(moved, post_update_stats)
  sae.topk_threshold = torch.tensor(0.9, dtype=torch.double)
  sae.update_topk_threshold(out.feature_acts)
  np.testing.assert_allclose(moved.threshold, sae.topk_threshold, rtol=1e-12)


@pytest.mark.parametrize("dead", DEAD)
def test_matryoshka_batch_topk(dead):
  """AuxK is that of the whole, as it is theirs by default."""
  params, x = draw("b_enc")
  sae, out = theirs(
    matryoshka.MatryoshkaBatchTopKTrainingSAE,
    matryoshka.MatryoshkaBatchTopKTrainingSAEConfig,
    params,
    x,
    dead,
    matryoshka_widths=[6, 12, WIDTH],
    **BY_RANK,
  )
  with jax.enable_x64(True):
    architecture = BatchTopK(prefixes=(0.25, 0.5))
    loss, grads, _ = ours(architecture, Sae, params, x, dead)
  assert_equal(sae, out, loss, grads)
