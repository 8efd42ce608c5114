"""One update of a stack from active and in-window pairs, optimiser and all.

Gradients of a chunk of latents are used up where they are made: the chunk's
weights and moments are read, moved and written back, and no gradient as large
as the weights exists. With β₁ = 0 a latent without a gradient stays where it is
and only its second moments decay; they decay here at once, because that is one
pass over memory, while rows that are fetched and written one by one are not
faster unless nearly all latents are left out, and columns of W_enc never are.

Shapes: S autoencoders in a stack, N tokens, D site width, F latents.
"""

import jax
import jax.numpy as jnp
import optax
from flax import struct

from jaxsae.sae import Objective, Sae, Sums, sparse
from jaxsae.sae import gradients as dense
from jaxsae.train import optim
from jaxsae.train.config import OptimConfig


@struct.dataclass
class Moved:
  """A stack after an update, and what is reported of it.

  Attributes:
    stack: the autoencoders.
    moments: Adam's.
    b_dec: the gradient of b_dec, [S, D].
    threshold: the gradient of the thresholds, [S, F].
    pull: the penalties' part in it, [S, F].
    sums: [S] each.
    fired: how often each latent fired, [S, F].
  """

  stack: Sae
  moments: optax.OptState
  b_dec: jax.Array
  threshold: jax.Array
  pull: jax.Array
  sums: Sums
  fired: jax.Array


def update(
  config: OptimConfig,
  stack: Sae,
  moments: optax.OptState,
  x: jax.Array,
  mask: jax.Array,
  dead: jax.Array,
  objective: Objective,
  coefficients: jax.Array,
  targets: jax.Array,
  rate: jax.Array,
  budget: int,
) -> Moved:
  """The gradient of the loss, then `optim.apply`, member by member.

  Args:
    config: of the optimiser.
    stack: S autoencoders, all on one device.
    moments: Adam's.
    x: activations [N, D] of unit mean squared norm.
    mask: [N], 1 for tokens that count.
    dead: bool [S, F], the latents to wake.
    objective: the kernel and the penalties.
    coefficients: λ of each, [S].
    targets: L0* of each, [S].
    rate: of learning.
    budget: pairs a token, in the mean, up to which a member is updated from
      its pairs; with more it is updated by the dense path.

  Raises:
    UserError: if gradients under the objective are not of pairs alone.
  """

  def member(index, moved):
    rest = objective, coefficients[index], targets[index]
    pairs, reading = sparse.look(moved.stack, index, x, mask, *rest, budget)

    def of_all(_, moved):
      part = sparse.cut(moved.stack, index, 0, stack.width)
      grads, pull, seen = dense(part, x, mask, dead[index], *rest)
      moved = _move(config, moved, index, 0, part, grads, pull, rate)
      return _report(moved, index, grads.b_dec, seen)

    def of_pairs(_, moved):
      moved, b_dec = _chunks(
        config, moved, index, dead, pairs, reading, objective.kernel, rate
      )
      return _report(moved, index, b_dec, (reading.sums, reading.fired))

    # Loops of one turn or none: XLA would copy the stack for a branch.
    full = pairs.overflow.astype(jnp.int32)
    moved = jax.lax.fori_loop(0, 1 - full, of_pairs, moved)
    return jax.lax.fori_loop(0, full, of_all, moved)

  begin = _begin(stack, moments)
  moved = jax.lax.fori_loop(0, len(stack.threshold), member, begin)
  return _move_b_dec(config, moved, rate)


def _begin(stack, moments):
  each = jnp.zeros(len(stack.threshold))
  return Moved(
    stack=stack,
    moments=moments,
    b_dec=jnp.zeros_like(stack.b_dec),
    threshold=jnp.zeros_like(stack.threshold),
    pull=jnp.zeros_like(stack.threshold),
    sums=Sums(each, each, each, each, each),
    fired=jnp.zeros_like(stack.threshold),
  )


def _chunks(config, moved, member, dead, pairs, reading, kernel, rate):
  """Moves all latents of a member; also the gradient of its b_dec."""
  size = sparse.chunk(moved.stack.width)

  def step(index, carry):
    moved, b_dec = carry
    at = index * size
    part = sparse.cut(moved.stack, member, at, size)
    asleep = jax.lax.dynamic_slice(dead, (member, at), (1, size))[0]
    grads, pull = sparse.of_chunk(part, index, asleep, pairs, reading, kernel)
    moved = _move(config, moved, member, at, part, grads, pull, rate)
    return moved, b_dec + grads.b_dec

  chunks = moved.stack.width // size
  begin = moved, jnp.sum(reading.error, axis=0)
  return jax.lax.fori_loop(0, chunks, step, begin)


def _move(config, moved, member, at, part, grads, pull, rate):
  """Moves some latents of a member, and leaves b_dec and Adam's count."""
  size = part.width
  old = _of_saes(lambda m: sparse.cut(m, member, at, size), moved.moments)
  part, old = jax.lax.optimization_barrier((part, old))
  part, new = optim.apply(config, part, grads, old, rate)
  # Or XLA reads while it writes, and copies the whole stack to be able to.
  part, new = jax.lax.optimization_barrier((part, new))
  put = lambda x, y: jax.lax.dynamic_update_slice(x, y[None], (member, at))
  return moved.replace(
    stack=sparse.put(moved.stack, part, member, at),
    moments=_of_saes(
      lambda m, n: sparse.put(m, n, member, at), moved.moments, new
    ),
    threshold=put(moved.threshold, grads.threshold),
    pull=put(moved.pull, pull),
  )


def _report(moved, member, b_dec, seen):
  """Writes down what a member did."""
  sums, fired = seen
  return moved.replace(
    b_dec=moved.b_dec.at[member].set(b_dec),
    sums=jax.tree.map(lambda x, y: x.at[member].set(y), moved.sums, sums),
    fired=moved.fired.at[member].set(fired),
  )


def _move_b_dec(config, moved, rate):
  """Moves b_dec of all members, and counts the update."""
  stack = _without_latents(moved.stack)
  grads = stack.replace(b_dec=moved.b_dec)
  old = _of_saes(_without_latents, moved.moments)
  stack, new = optim.apply(config, stack, grads, old, rate)
  moments = jax.tree.map(
    lambda x, y: x.replace(b_dec=y.b_dec) if isinstance(x, Sae) else y,
    moved.moments,
    new,
    is_leaf=_is_sae,
  )
  return moved.replace(
    stack=moved.stack.replace(b_dec=stack.b_dec), moments=moments
  )


def _without_latents(stack):
  """Only b_dec is left: all else has width 0."""
  return stack.replace(
    w_enc=stack.w_enc[..., :0],
    b_enc=stack.b_enc[..., :0],
    w_dec=stack.w_dec[..., :0, :],
    threshold=stack.threshold[..., :0],
  )


def _of_saes(function, state, *rest):
  """Maps what is as an autoencoder in optimiser states; leaves all else."""

  def of_any(x, *more):
    return function(x, *more) if _is_sae(x) else x

  return jax.tree.map(of_any, state, *rest, is_leaf=_is_sae)


def _is_sae(node):
  return isinstance(node, Sae)
