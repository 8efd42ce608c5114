"""What an autoencoder minimises, and what it reports while it does.

Inputs are scaled to unit mean squared norm. Shapes: N tokens, D, F.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import struct

from jaxsae.sae.jumprelu import in_window, jumprelu, l0
from jaxsae.sae.model import Sae

# Any small number: Adam brings a gradient that is alone to the usual size.
WAKE = 1e-3


@dataclasses.dataclass(frozen=True)
class Penalty:
  """How sparsity is asked for; the same for every member of a stack.

  Attributes:
    bandwidth: ε of the straight-through kernel.
    to_target: pull L0 to a target, instead of paying for each active latent.
  """

  bandwidth: float
  to_target: bool

  def __call__(self, l0, coefficient, target):
    """The penalty of each token.

    Plain: λ L0 (arXiv 2407.14435). To a target L0*: λ (2/L0*) (L0 - L0*)²
    for each token (Gemma Scope 2 §2).
    """
    if self.to_target:
      return coefficient * (2 / target) * jnp.square(l0 - target)
    return coefficient * l0


@struct.dataclass
class Sums:
  """Sums over tokens that the figures of a bucket are made of.

  Attributes:
    tokens: n.
    loss: Σ loss.
    squared_error: Σ ‖x - x̂‖².
    l0: Σ active latents.
    in_window: Σ share of pre-activations inside the kernel.
  """

  tokens: jax.Array
  loss: jax.Array
  squared_error: jax.Array
  l0: jax.Array
  in_window: jax.Array


def loss(
  sae: Sae,
  x: jax.Array,
  mask: jax.Array,
  dead: jax.Array,
  penalty: Penalty,
  coefficient: jax.Array,
  target: jax.Array,
) -> tuple[jax.Array, tuple[Sums, jax.Array]]:
  """Mean over tokens of ‖x - x̂‖² + penalty, and what wakes the dead.

  The encoder sees x - b_dec, as in Gemma Scope; `fold` takes that out again.
  A dead latent has no token near its threshold and so no gradient; WAKE · θ
  lets its threshold sink until it fires. (Anthropic's pre-activation loss,
  Σ relu(θ - z) over dead latents, does the same, but also turns all of their
  encoders towards the mean activation.)

  Args:
    sae: one autoencoder, in training form.
    x: activations [N, D] of unit mean squared norm.
    mask: [N], 1 for tokens that count and 0 for special ones.
    dead: bool [F], the latents to wake.
    penalty: its form.
    coefficient: λ, a scalar.
    target: L0*, a scalar; not looked at without `penalty.to_target`.

  Returns:
    The loss, and beside it the sums and how often each latent fired, [F].
  """
  # (x - b_dec) W_enc + b_enc, with b_dec taken to the bias: the gradient of
  # b_dec then needs no product over tokens.
  bias = sae.b_enc - sae.b_dec @ sae.w_enc
  pre = x @ sae.w_enc + bias[None, :]
  latents = jumprelu(pre, sae.threshold, penalty.bandwidth)
  error = latents @ sae.w_dec + sae.b_dec[None, :] - x
  squared = jnp.sum(jnp.square(error), axis=-1)
  active = l0(pre, sae.threshold, penalty.bandwidth)
  losses = squared + penalty(active, coefficient, target)

  inside = in_window(pre, sae.threshold, penalty.bandwidth)
  sums = Sums(
    tokens=jnp.sum(mask),
    loss=jnp.sum(mask * losses),
    squared_error=jnp.sum(mask * squared),
    l0=jnp.sum(mask * active),
    in_window=jnp.sum(mask * jnp.mean(inside, axis=-1)),
  )
  fired = jnp.sum((latents > 0) * mask[:, None], axis=0)
  wake = WAKE * jnp.sum(jnp.where(dead, sae.threshold, 0.0))
  mean = sums.loss / jnp.maximum(sums.tokens, 1)
  return mean + wake, jax.lax.stop_gradient((sums, fired))
