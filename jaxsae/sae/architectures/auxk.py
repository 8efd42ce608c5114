"""AuxK: dead latents learn to reconstruct the error of the others.

(Gao et al., arXiv 2406.04093, appendix A.2; its details as in SAELens 6.54.12.)
Shapes: N tokens, D width of the site written, F latents.
"""

import functools

import jax
import jax.numpy as jnp

from jaxsae.sae import kth_largest, linear
from jaxsae.sae.architectures.architecture import squared
from jaxsae.sae.penalty import mean


def loss(
  pre: jax.Array,
  dead: jax.Array,
  w_dec: jax.Array,
  error: jax.Array,
  mask: jax.Array,
  shards: int = 1,
) -> jax.Array:
  """Returns the AuxK loss, a scalar: min(n_dead / k, 1) · mean ‖e - ê‖².

  k = D/2, and ê = z W_dec without a bias, where z are the k largest
  pre-activations of dead latents on each token, of either sign; e = y - ŷ is
  data. It isn't computed if no member of the stack has a dead latent, but its
  memory is reserved.

  Args:
    pre: pre-activations [N, F].
    dead: bool [F].
    w_dec: [F, D].
    error: ŷ - y, [N, D].
    mask: [N].
    shards: over how many devices latents are split.
  """
  told = (pre, dead, w_dec, jax.lax.stop_gradient(error), mask)
  nothing = lambda *_: jnp.zeros((), pre.dtype)
  some = functools.partial(_loss, shards)
  return jax.lax.cond(_in_any(jnp.any(dead)), some, nothing, *told)


def _loss(shards, pre, dead, w_dec, error, mask):
  most = max(w_dec.shape[-1] // 2, 1)
  count = jnp.sum(dead)
  ranked = jnp.where(dead[None, :], pre, -jnp.inf)
  k = jnp.minimum(count, most)
  chosen = ranked >= kth_largest.kth_largest(ranked, k, shards)
  woken = jnp.where(chosen, pre, 0.0)
  (made,) = linear.decode(woken, w_dec, (w_dec.shape[0],))
  return jnp.minimum(count / most, 1) * mean(squared(made + error), mask)


@jax.custom_batching.custom_vmap
def _in_any(flag):
  """Returns whether a flag is true in any member of a stack.

  One answer for all of them: with one for each, vmap would compute both
  branches of `cond`.
  """
  return flag


@_in_any.def_vmap
def _(axis_size, in_batched, flags):
  del axis_size, in_batched
  return _in_any(jnp.any(flags)), False
