"""JumpReLU and the Heaviside step, with straight-through gradients.

Both are flat or discontinuous in θ, so the derivative of their expectation is
estimated with a rectangle kernel K(u) = 1 if |u| < ½ else 0 of bandwidth ε
around the threshold (Rajamanoharan et al., arXiv 2407.14435, equations 11-12):

  ∂ JumpReLU_θ(z) / ∂θ := -(θ/ε) K((z - θ)/ε)
  ∂ H(z - θ)      / ∂θ := -(1/ε) K((z - θ)/ε)

and ∂JumpReLU/∂z = H(z - θ), ∂H/∂z := 0: sparsity moves thresholds alone.
Both take *pre-activations* z: the kernel needs what lies below θ as well.

Shapes: N tokens, F latents.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class Kernel:
  """The rectangle around each threshold, and where its gradient goes.

  Attributes:
    bandwidth: ε, its width.
    to_input: also adds to ∂/∂z the negative of what goes to θ, +(θ/ε)K and
      +(1/ε)K, so that sparsity trains encoders too. Anthropic's JumpReLU
      (January 2025) does, as in SAELens; DeepMind's does not.
  """

  bandwidth: float
  to_input: bool = False

  def holds(self, pre: jax.Array, threshold: jax.Array) -> jax.Array:
    """Where the kernel is not zero: |z - θ| < ε/2, bool [N, F]."""
    return jnp.abs(pre - threshold[None, :]) < self.bandwidth / 2


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def jumprelu(pre: jax.Array, threshold: jax.Array, kernel: Kernel) -> jax.Array:
  """z · H(z - θ) for pre-activations [N, F] and thresholds [F]."""
  del kernel
  return jnp.where(pre > threshold[None, :], pre, 0.0)


def _jumprelu_forward(pre, threshold, kernel):
  return jumprelu(pre, threshold, kernel), (pre, threshold)


def _jumprelu_backward(kernel, saved, grad):
  pre, threshold = saved
  grad_pre = jnp.where(pre > threshold[None, :], grad, 0.0)
  near = jnp.where(kernel.holds(pre, threshold), grad, 0.0)
  slope = threshold / kernel.bandwidth
  if kernel.to_input:
    grad_pre += slope[None, :] * near
  return grad_pre, -slope * jnp.sum(near, axis=0)


jumprelu.defvjp(_jumprelu_forward, _jumprelu_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def heaviside(
  pre: jax.Array, threshold: jax.Array, kernel: Kernel
) -> jax.Array:
  """H(z - θ) [N, F]: 1 where a latent is active, else 0."""
  del kernel
  return (pre > threshold[None, :]).astype(pre.dtype)


def _heaviside_forward(pre, threshold, kernel):
  return heaviside(pre, threshold, kernel), (pre, threshold)


def _heaviside_backward(kernel, saved, grad):
  pre, threshold = saved
  near = jnp.where(kernel.holds(pre, threshold), grad, 0.0) / kernel.bandwidth
  grad_pre = near if kernel.to_input else jnp.zeros_like(pre)
  return grad_pre, -jnp.sum(near, axis=0)


heaviside.defvjp(_heaviside_forward, _heaviside_backward)
