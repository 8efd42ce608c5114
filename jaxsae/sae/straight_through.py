"""JumpReLU and the Heaviside step, with straight-through gradients.

Both are flat or discontinuous in θ. So the derivative of their expectation is
estimated with a rectangular kernel, K(u) = 1 if |u| < ½ else 0, of bandwidth ε
around the threshold (Rajamanoharan et al., arXiv 2407.14435, equations 11-12):

  ∂ JumpReLU_θ(z) / ∂θ := -(θ/ε) K((z - θ)/ε)
  ∂ H(z - θ)      / ∂θ := -(1/ε) K((z - θ)/ε)

and ∂JumpReLU/∂z = H(z - θ), ∂H/∂z := 0: sparsity moves only thresholds.
Both take *pre-activations* z, because the kernel reaches below θ as well.

Shapes: N tokens, F latents.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class Kernel:
  """The rectangular kernel around thresholds, and where its gradient goes.

  Attributes:
    bandwidth: ε, its width.
    to_input: whether ∂/∂z also gets the negative of the gradient of θ, +(θ/ε)K
      and +(1/ε)K, so that sparsity trains encoders too. This is so in
      Anthropic's JumpReLU (January 2025) and in SAELens, but not in DeepMind's.
  """

  bandwidth: float
  to_input: bool = False

  def holds(self, pre: jax.Array, threshold: jax.Array) -> jax.Array:
    """Marks where the kernel is not zero, |z - θ| < ε/2: bool [N, F]."""
    return jnp.abs(pre - threshold[None, :]) < self.bandwidth / 2


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def activate(
  pre: jax.Array, threshold: jax.Array, kernel: Kernel
) -> tuple[jax.Array, jax.Array]:
  """Returns latents z · H(z - θ) and activity H(z - θ), both [N, F].

  Both in one function, because then the gradient of θ is one sum over [N, F].

  Args:
    pre: pre-activations z, [N, F].
    threshold: θ, [F].
    kernel: the kernel of the gradients.
  """
  del kernel
  above = pre > threshold[None, :]
  return jnp.where(above, pre, 0.0), above.astype(pre.dtype)


def _forward(pre, threshold, kernel):
  return activate(pre, threshold, kernel), (pre, threshold)


def _backward(kernel, saved, grads):
  pre, threshold = saved
  grad_latents, grad_active = grads
  grad_pre = jnp.where(pre > threshold[None, :], grad_latents, 0.0)
  pull = threshold[None, :] * grad_latents + grad_active
  pull = jnp.where(kernel.holds(pre, threshold), pull, 0.0) / kernel.bandwidth
  if kernel.to_input:
    grad_pre += pull
  return grad_pre, -jnp.sum(pull, axis=0)


activate.defvjp(_forward, _backward)
