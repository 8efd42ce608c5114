"""The loss and all its gradients agree with SAELens, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsae.sae import JumpRelu, Kernel, Sae
from jaxsae.sae.penalty import L0, Quadratic, Tanh
from tests.libraries import need
from tests.sae.toys import loss

torch = need("torch")
sae_lens = need("sae_lens")
lens = need("sae_lens.saes.jumprelu_sae")
base = need("sae_lens.saes.sae")

D, WIDTH, TOKENS = 6, 24, 200
BANDWIDTH, COEFFICIENT, TARGET = 0.3, 0.07, 5.0
PENALTIES = {"step": L0(), "quadratic": Quadratic(), "tanh": Tanh(4.0)}
OURS = {
  "W_enc": "w_enc",
  "b_enc": "b_enc",
  "W_dec": "w_dec",
  "b_dec": "b_dec",
  "threshold": "threshold",
}


def values():
  """Draws parameters by SAELens' names, and tokens; some thresholds are 0."""
  rng = np.random.default_rng(0)
  threshold = np.maximum(rng.uniform(-0.1, 0.5, WIDTH), 0)
  assert (threshold == 0).any() and (threshold > BANDWIDTH / 2).any()
  return {
    "W_enc": rng.normal(size=(D, WIDTH)) / np.sqrt(D),
    "b_enc": 0.1 * rng.normal(size=WIDTH),
    "W_dec": rng.normal(size=(WIDTH, D)) / np.sqrt(D),
    "b_dec": 0.2 * rng.normal(size=D),
    "threshold": threshold,
  }, rng.normal(size=(TOKENS, D))


def theirs(mode, to_input, centred, params, x):
  """Computes SAELens' loss and gradients.

  Its threshold is a float32 parameter; the data given here is float64, which
  its forward pass takes as it is.
  """
  config = lens.JumpReLUTrainingSAEConfig(
    d_in=D,
    d_sae=WIDTH,
    dtype="float64",
    device="cpu",
    apply_b_dec_to_input=centred,
    normalize_activations="none",
    jumprelu_bandwidth=BANDWIDTH,
    jumprelu_sparsity_loss_mode=mode,
    jumprelu_ste_to_input=to_input,
    l0_coefficient=COEFFICIENT,
    target_l0=TARGET,
  )
  sae = lens.JumpReLUTrainingSAE(config)
  for name, value in params.items():
    sae._parameters[name] = torch.nn.Parameter(torch.tensor(value))
  out = sae.training_forward_pass(
    base.TrainStepInput(
      sae_in=torch.tensor(x),
      coefficients={"l0": COEFFICIENT},
      dead_neuron_mask=None,
      n_training_steps=0,
      is_logging_step=False,
    )
  )
  out.loss.backward()
  grads = {name: getattr(sae, name).grad.numpy() for name in params}
  return out.loss.item(), grads


def ours(mode, to_input, params, x):
  objective = JumpRelu(
    kernel=Kernel(BANDWIDTH, to_input), penalties=(PENALTIES[mode],)
  )
  sae = Sae(**{OURS[name]: jnp.asarray(v) for name, v in params.items()})
  value, grads = jax.value_and_grad(loss, has_aux=True)(
    sae,
    jnp.asarray(x),
    jnp.ones(len(x)),
    jnp.zeros(WIDTH, bool),
    objective,
    COEFFICIENT,
    TARGET,
  )
  grads = {name: np.asarray(getattr(grads, OURS[name])) for name in params}
  return float(value[0]), grads


@pytest.mark.parametrize("mode", PENALTIES)
@pytest.mark.parametrize("to_input", [False, True])
@pytest.mark.parametrize("centred", [True, False])
def test_the_loss_and_the_gradient_of_every_parameter(mode, to_input, centred):
  """`centred` is SAELens' apply_b_dec_to_input; without it, b_enc differs.

  Then b_enc of theirs is b_enc - b_dec W_enc of ours, and gradients go through
  that: W_enc of ours also gets -b_dec ⊗ ∂b_enc, and b_dec also -W_enc ∂b_enc.
  """
  params, x = values()
  given = dict(params)
  if not centred:
    given["b_enc"] = params["b_enc"] - params["b_dec"] @ params["W_enc"]
  their_loss, their_grads = theirs(mode, to_input, centred, given, x)
  if not centred:
    of_bias = their_grads["b_enc"]
    their_grads["W_enc"] = their_grads["W_enc"] - np.outer(
      params["b_dec"], of_bias
    )
    their_grads["b_dec"] = their_grads["b_dec"] - params["W_enc"] @ of_bias
  with jax.enable_x64(True):
    our_loss, our_grads = ours(mode, to_input, params, x)
  np.testing.assert_allclose(our_loss, their_loss, rtol=1e-12)
  for name, grad in our_grads.items():
    assert grad.dtype == np.float64 and np.any(grad), name
    error = np.max(np.abs(grad - their_grads[name]))
    assert error < 1e-9 * np.max(np.abs(grad)), name
    np.testing.assert_allclose(
      grad, their_grads[name], rtol=1e-9, atol=1e-12, err_msg=name
    )


def test_the_two_ways_of_the_kernel_differ():
  """Shows that the parametrisation above compares different things."""
  params, x = values()
  with jax.enable_x64(True):
    _, alone = ours("step", False, params, x)
    _, both = ours("step", True, params, x)
  assert not np.allclose(alone["W_enc"], both["W_enc"])
  np.testing.assert_array_equal(alone["threshold"], both["threshold"])
