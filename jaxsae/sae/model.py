"""The sparse autoencoder: five arrays and what they mean.

  latents = JumpReLU_θ(x W_enc + b_enc)
  x̂ = latents W_dec + b_dec

(Rajamanoharan et al., arXiv 2407.14435.) Shapes: D site width, F latents.
"""

import jax
import jax.numpy as jnp
from flax import struct


@struct.dataclass
class Sae:
  """An autoencoder of raw activations, as Gemma Scope publishes them.

  Values, gradients, moments, shardings and checkpoints all have this type; a
  stack of S autoencoders has it too, with a leading axis S on every array.

  Attributes:
    w_enc: [D, F].
    b_enc: [F].
    w_dec: [F, D]; row i is the direction of latent i.
    b_dec: [D].
    threshold: [F], θ > 0; a latent is active where its pre-activation is
      strictly above its threshold.
  """

  w_enc: jax.Array
  b_enc: jax.Array
  w_dec: jax.Array
  b_dec: jax.Array
  threshold: jax.Array

  @property
  def width(self) -> int:
    """Number of latents F."""
    return self.w_dec.shape[-2]

  def encode(self, x: jax.Array) -> jax.Array:
    """Activations [..., D] → latents [..., F]."""
    pre = x @ self.w_enc + _last(self.b_enc, x)
    return jnp.where(pre > _last(self.threshold, x), jax.nn.relu(pre), 0.0)

  def decode(self, latents: jax.Array) -> jax.Array:
    """Latents [..., F] → reconstruction [..., D]."""
    return latents @ self.w_dec + _last(self.b_dec, latents)

  def __call__(self, x: jax.Array) -> jax.Array:
    """The reconstruction of activations [..., D]."""
    return self.decode(self.encode(x))


def fold(sae: Sae, scale: jax.Array) -> Sae:
  """An autoencoder in training → one of raw activations.

  In training the input is x / scale and the encoder sees it minus b_dec
  (Gemma Scope, arXiv 2408.05147 appendix A). Weights stay as they are:
  b_enc' = scale · (b_enc - b_dec W_enc), b_dec' = scale · b_dec,
  θ' = scale · θ. Latents and reconstruction grow by `scale`.
  """
  return sae.replace(
    b_enc=scale * (sae.b_enc - sae.b_dec @ sae.w_enc),
    b_dec=scale * sae.b_dec,
    threshold=scale * sae.threshold,
  )


def _last(vector: jax.Array, like: jax.Array) -> jax.Array:
  """A vector on the last axis of an array with the rank of `like`."""
  return vector.reshape((1,) * (like.ndim - 1) + (-1,))
