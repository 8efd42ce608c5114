"""What an autoencoder minimises, and what it reports while it does.

Inputs are scaled to unit mean squared norm. Shapes: N tokens, D, F.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from flax import struct

from jaxsae.sae.jumprelu import Kernel, jumprelu
from jaxsae.sae.linear import decode, encode
from jaxsae.sae.model import Sae
from jaxsae.sae.penalty import Activity, Penalty

# Any small number: Adam brings a gradient that is alone to the usual size.
WAKE = 1e-3


@dataclasses.dataclass(frozen=True)
class Objective:
  """What to minimise beside the squared error; one for all of a stack.

  Attributes:
    kernel: of the straight-through gradients.
    penalties: they add up, each with the same λ.
  """

  kernel: Kernel
  penalties: tuple[Penalty, ...]


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
  objective: Objective,
  coefficient: jax.Array,
  target: jax.Array,
) -> tuple[jax.Array, tuple[Sums, jax.Array]]:
  """Mean over tokens of ‖x - x̂‖², penalties, and what wakes the dead.

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
    objective: the kernel and the penalties.
    coefficient: λ, a scalar.
    target: L0*, a scalar; only penalties that pull to a target look at it.

  Returns:
    The loss, and beside it the sums and how often each latent fired, [F].
  """
  return _loss(
    sae, sae.threshold, x, mask, dead, objective, coefficient, target
  )


def gradients(sae: Sae, *rest) -> tuple[Sae, jax.Array, tuple[Sums, jax.Array]]:
  """The gradient of `loss`, from the same arguments.

  Returns:
    The gradient, the penalties' part in the gradient of the thresholds [F],
    and what `loss` has beside its value.
  """
  # Thresholds go in twice, so one backward pass tells the two parts apart.
  grad = jax.grad(_loss, argnums=(0, 1), has_aux=True)
  (grads, pull), seen = grad(sae, sae.threshold, *rest)
  return grads.replace(threshold=grads.threshold + pull), pull, seen


def _loss(
  sae, penalised, x, mask, dead, objective, coefficient, target
) -> tuple[jax.Array, tuple[Sums, jax.Array]]:
  """`loss`; the penalties see the thresholds `penalised`."""
  pre = encode(x, sae.w_enc, sae.b_enc, sae.b_dec)
  latents = jumprelu(pre, sae.threshold, objective.kernel)
  error = decode(latents, sae.w_dec, sae.b_dec) - x

  seen = Activity(pre, penalised, sae.w_dec, mask, objective.kernel)
  squared = jnp.sum(jnp.square(error), axis=-1)
  paid = [p(seen, coefficient, target) for p in objective.penalties]
  mean = functools.reduce(jnp.add, paid, seen.mean(squared))
  wake = WAKE * jnp.sum(jnp.where(dead, sae.threshold, 0.0))
  return mean + wake, jax.lax.stop_gradient(_count(seen, squared, mean))


def _count(seen: Activity, squared, mean) -> tuple[Sums, jax.Array]:
  tokens = jnp.sum(seen.mask)
  inside = seen.kernel.holds(seen.pre, seen.threshold)
  sums = Sums(
    tokens=tokens,
    loss=tokens * mean,
    squared_error=jnp.sum(seen.mask * squared),
    l0=jnp.sum(seen.mask * seen.l0),
    in_window=jnp.sum(seen.mask * jnp.mean(inside, axis=-1)),
  )
  return sums, jnp.sum(seen.active * seen.mask[:, None], axis=0)
