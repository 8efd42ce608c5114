"""Some latents of one member of a stack: read from it, and written back.

Shapes: S autoencoders in a stack, D site width, F latents, C of them.
"""

import math

import jax

from jaxsae.sae.model import Sae

# Their pre-activations, and their share of all weights and moments, should lie
# in a CPU's cache.
MOST = 1024


def chunk(width: int) -> int:
  """C for F: the largest power of two that divides F, up to MOST."""
  return math.gcd(width, MOST)


def cut(stack: Sae, member: jax.Array, start: jax.Array, size: int) -> Sae:
  """The latents from `start` of a member, without the leading S.

  b_dec is whole: it has no latents.
  """

  def take(x, axis):
    at, shape = _place(x, axis, member, start, size)
    return jax.lax.dynamic_slice(x, at, shape)[0]

  return jax.tree.map(take, stack, _axes(stack))


def put(stack: Sae, part: Sae, member: jax.Array, start: jax.Array) -> Sae:
  """The stack with what was `cut` replaced, but for b_dec."""

  def give(x, new, axis):
    if axis is WHOLE:
      return x
    at, _ = _place(x, axis, member, start, 0)
    return jax.lax.dynamic_update_slice(x, new[None], at)

  return jax.tree.map(give, stack, part, _axes(stack))


WHOLE = 0


def _axes(stack):
  """Which axis of each array is that of the latents."""
  return stack.replace(
    w_enc=-1, b_enc=-1, w_dec=-2, b_dec=WHOLE, threshold=-1
  )


def _place(x, axis, member, start, size):
  """Indices and shape of a slice of [S, …]."""
  at, shape = [member] + [0] * (x.ndim - 1), [1, *x.shape[1:]]
  if axis is not WHOLE:
    at[axis], shape[axis] = start, size
  return at, shape
