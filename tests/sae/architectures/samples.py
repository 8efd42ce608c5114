"""Random autoencoders of every architecture, and tokens for them."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxsae.sae import (
  BatchTopK,
  Gated,
  JumpRelu,
  Kernel,
  Relu,
  TopK,
  UnnormalisedJumpRelu,
  UpdateInputs,
  UpdateTokens,
)

D, WIDTH, TOKENS = 6, 24, 40

ALL = {
  "jumprelu": lambda **kw: JumpRelu(kernel=Kernel(0.3), **kw),
  "free_jumprelu": lambda **kw: UnnormalisedJumpRelu(kernel=Kernel(0.3), **kw),
  "relu": Relu,
  "gated": Gated,
  "topk": TopK,
  "batch_topk": BatchTopK,
}


def draw_params(architecture, d_in=D, d=D, seed=0, dtype=jnp.float32):
  """Draws parameters, none of which is zero except thresholds that must be."""
  start = architecture.init(jax.random.key(0), d_in, d, WIDTH)
  rng = np.random.default_rng(seed)
  noise = lambda x: x + 0.2 * rng.normal(size=x.shape)
  params = jax.tree.map(lambda x: jnp.asarray(noise(x), dtype), start)
  if not hasattr(params, "threshold"):
    return params
  learned = isinstance(architecture, JumpRelu)
  threshold = rng.uniform(0, 0.5, WIDTH) if learned else np.zeros(WIDTH)
  return params.replace(threshold=jnp.asarray(threshold, dtype))


def draw_tokens(d_in=D, d=None, tokens=TOKENS, seed=1, dtype=jnp.float32):
  """Draws tokens; every fifth does not count, and y is x unless d is given."""
  rng = np.random.default_rng(seed)
  x = jnp.asarray(rng.normal(size=(tokens, d_in)), dtype)
  y = x if d is None else jnp.asarray(rng.normal(size=(tokens, d)), dtype)
  mask = jnp.asarray(np.arange(tokens) % 5 != 3, dtype)
  return UpdateTokens(x, y, mask)


def make_inputs(coefficient=0.1, target=3.0, dead=0, dtype=jnp.float32):
  """Makes the inputs of an update that wakes the first `dead` latents."""
  return UpdateInputs(
    jnp.asarray(coefficient, dtype),
    jnp.asarray(target, dtype),
    jnp.arange(WIDTH) < dead,
  )


def assert_close(found, wanted, rtol=1e-9, atol=1e-11):
  """Asserts that two trees agree leaf by leaf."""
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=atol),
    found,
    wanted,
  )
