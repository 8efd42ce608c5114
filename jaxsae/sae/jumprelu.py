"""JumpReLU and the L0 step, with straight-through gradients to θ.

Both are flat or discontinuous in θ, so the derivative of their expectation is
estimated with a rectangle kernel K(u) = 1 if |u| < ½ else 0 of bandwidth ε
around the threshold (Rajamanoharan et al., arXiv 2407.14435, equations 11-12):

  ∂ JumpReLU_θ(z) / ∂θ := -(θ/ε) K((z - θ)/ε)
  ∂ H(z - θ)      / ∂θ := -(1/ε) K((z - θ)/ε)

and ∂JumpReLU/∂z = H(z - θ), ∂H/∂z := 0: sparsity moves thresholds alone.
Both take *pre-activations* z: the kernel needs what lies below θ as well.

Shapes: N tokens, F latents.
"""

import functools

import jax
import jax.numpy as jnp


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def jumprelu(
  pre: jax.Array, threshold: jax.Array, bandwidth: float
) -> jax.Array:
  """z · H(z - θ) for pre-activations [N, F] and thresholds [F]."""
  del bandwidth
  return jnp.where(pre > threshold[None, :], pre, 0.0)


def _jumprelu_forward(pre, threshold, bandwidth):
  return jumprelu(pre, threshold, bandwidth), (pre, threshold)


def _jumprelu_backward(bandwidth, saved, grad):
  pre, threshold = saved
  grad_pre = jnp.where(pre > threshold[None, :], grad, 0.0)
  inside = in_window(pre, threshold, bandwidth)
  pull = jnp.sum(jnp.where(inside, grad, 0.0), axis=0)
  return grad_pre, -threshold / bandwidth * pull


jumprelu.defvjp(_jumprelu_forward, _jumprelu_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def l0(pre: jax.Array, threshold: jax.Array, bandwidth: float) -> jax.Array:
  """Number of active latents of each token, [N], from pre-activations."""
  del bandwidth
  return jnp.sum(pre > threshold[None, :], axis=-1, dtype=pre.dtype)


def _l0_forward(pre, threshold, bandwidth):
  return l0(pre, threshold, bandwidth), (pre, threshold)


def _l0_backward(bandwidth, saved, grad):
  pre, threshold = saved
  inside = in_window(pre, threshold, bandwidth)
  pull = jnp.sum(jnp.where(inside, grad[:, None], 0.0), axis=0)
  return jnp.zeros_like(pre), -pull / bandwidth


l0.defvjp(_l0_forward, _l0_backward)


def in_window(
  pre: jax.Array, threshold: jax.Array, bandwidth: float
) -> jax.Array:
  """Where the kernel is not zero: |z - θ| < ε/2, bool [N, F]."""
  return jnp.abs(pre - threshold[None, :]) < bandwidth / 2
