"""The sparse autoencoder: five arrays and what they mean.

  latents = JumpReLU_θ(x W_enc + b_enc)
  x̂ = latents W_dec + b_dec

(Rajamanoharan et al., arXiv 2407.14435.) Every architecture that can be trained
here is folded into this form after training. A transcoder reads one site and
writes another: x [..., D_in] → ŷ [..., D]; it may add x W_skip.

Shapes: D_in width of the site read, D of the site written, F latents; for an
autoencoder both sites are one and D_in = D.
"""

import jax
import jax.numpy as jnp
from flax import struct

from jaxsae import latents as numbers
from jaxsae.brief import fields
from jaxsae.sae import kth_largest


class Sae(struct.PyTreeNode):
  """An autoencoder of raw activations, as Gemma Scope publishes them.

  Weights, gradients, moments, shardings and checkpoints all have this type. So
  does a stack of S autoencoders, with a leading axis S on every array.

  Attributes:
    w_enc: [D_in, F].
    b_enc: [F].
    w_dec: [F, D]; row i is the direction of latent i.
    b_dec: [D].
    threshold: [F], θ > 0; a latent is active where its pre-activation is
      strictly above its threshold.
    w_skip: [D_in, D], a transcoder's affine skip, or None.
    k: for TopK, the most latents that are active on a token: the k largest of
      those above their thresholds. None: all of those.
  """

  w_enc: jax.Array
  b_enc: jax.Array
  w_dec: jax.Array
  b_dec: jax.Array
  threshold: jax.Array
  w_skip: jax.Array | None = None
  k: int | None = struct.field(pytree_node=False, default=None)

  __repr__ = fields

  @property
  def width(self) -> int:
    """The number of latents, F."""
    return self.w_dec.shape[-2]

  def direction(self, latent: int) -> jax.Array:
    """Returns the direction of a latent by its number, [D].

    `w_dec[latent]` is the same, except that JAX takes another row in place of
    one that there is not.

    Raises:
      UserError: there is no such latent.
    """
    return self.w_dec[numbers.checked(latent, self.width, "direction()")]

  def encode(self, x: jax.Array) -> jax.Array:
    """Encodes activations [..., D_in] as latents [..., F]."""
    pre = x @ self.w_enc + _last(self.b_enc, x)
    latents = jnp.where(pre > _last(self.threshold, x), jax.nn.relu(pre), 0.0)
    return latents if self.k is None else largest(latents, self.k)

  def decode(self, latents: jax.Array) -> jax.Array:
    """Decodes latents [..., F] to a reconstruction [..., D], without skip."""
    return latents @ self.w_dec + _last(self.b_dec, latents)

  def __call__(self, x: jax.Array) -> jax.Array:
    """Reconstructs activations: [..., D_in] → [..., D], skip included."""
    y = self.decode(self.encode(x))
    return y if self.w_skip is None else y + x @ self.w_skip


def largest(latents: jax.Array, k: int) -> jax.Array:
  """Sets all but the k largest of latents [..., F] to 0; keeps all ties."""
  return jnp.where(latents >= kth_largest.kth_largest(latents, k), latents, 0.0)


def _last(vector: jax.Array, like: jax.Array) -> jax.Array:
  """Reshapes a vector to the rank of `like`, along its last axis."""
  return vector.reshape((1,) * (like.ndim - 1) + (-1,))
