"""One update of the autoencoders of one group.

Shapes: S autoencoders, B rows, L tokens of each row, N tokens of an update, D
site width, F latents.
"""

import jax
import jax.numpy as jnp
import optax
from flax import struct

from jaxsae.lm import Site
from jaxsae.sae import UpdateInputs, UpdateStats, UpdateTokens, sparse
from jaxsae.sae.architectures.architecture import Params
from jaxsae.train import optim
from jaxsae.train.group import Group
from jaxsae.train.state import StackState

MAX_SINCE_FIRED = 2**30  # where the count of tokens since fired stops
NEVER = 2**31 - 1  # a count that is never reached
WIDE = 16_384  # the least width at which the sparse gradient is tried


class Activations(struct.PyTreeNode):
  """Raw activations of a bucket [B, L], or of one update [N].

  Attributes:
    sites: the activations of every site, [B, L, D] or [N, D].
    mask: [B, L] or [N], 1 for tokens that count and 0 for special ones.
  """

  sites: dict[Site, jax.Array]
  mask: jax.Array


class Progress(struct.PyTreeNode):
  """The progress of one group in a bucket.

  Attributes:
    state: the state of the group's stacks, as one stack.
    fired: [S, F], on how many tokens of the bucket each latent was active.
  """

  state: StackState
  fired: jax.Array


class Update(struct.PyTreeNode):
  """The figures of one update of one group, [S] each.

  Attributes:
    tokens: number of tokens that count.
    loss: Σ loss over these tokens.
    squared_error: Σ ‖y - ŷ‖² over these tokens.
    coefficient: the sparsity coefficient λ.
    finite: bool, whether loss and gradient are finite; also the new weights,
      if such updates are skipped.
  """

  tokens: jax.Array
  loss: jax.Array
  squared_error: jax.Array
  coefficient: jax.Array
  finite: jax.Array


def update_group(
  group: Group,
  progress: Progress,
  activations: Activations,
  number: jax.Array,
) -> tuple[Progress, Update]:
  """Updates the S autoencoders of a group once.

  Args:
    group: the group.
    progress: its state, and how often latents fired so far.
    activations: raw activations of the tokens of the update.
    number: int32 [], the number of the update, counted from 0.
  """
  progress = group.constrain(progress)
  before = progress.state
  tokens = group.update_tokens(activations.sites, activations.mask, before)
  inputs = group.constrain(_update_inputs(group, before, number))
  grads, stats = _gradients(group, before.sae, tokens, inputs)
  # Sum over devices now: the optimiser works where the arrays are.
  grads, stats = group.constrain((grads, stats))
  warm = optim.learning_rate(group.optim, group.schedule.updates, number)
  sae, moments = optim.apply(
    group.optim,
    group.architecture,
    before.sae,
    grads,
    before.moments,
    warm * group.per_member("lr"),
    stats.post_update_stats,
  )
  after = before.replace(
    sae=sae,
    moments=moments,
    tokens_since_fired=_tokens_since_fired(before, stats),
  )
  finite = jnp.isfinite(stats.loss) & jnp.isfinite(norms(grads))
  if group.schedule.skip_not_finite:
    finite &= jnp.isfinite(norms(sae))
    after = _where_finite(finite, after, before)
    stats = stats.replace(fired=jnp.where(finite[:, None], stats.fired, 0))
  update = Update(
    tokens=stats.tokens,
    loss=stats.loss,
    squared_error=stats.squared_error,
    coefficient=inputs.coefficient,
    finite=finite,
  )
  progress = Progress(after, progress.fired + stats.fired)
  return group.constrain(progress), update


def _gradients(
  group: Group, params: Params, tokens: UpdateTokens, inputs: UpdateInputs
) -> tuple[Params, UpdateStats]:
  """Computes gradients from all latents, or on one CPU from active pairs.

  The latter where `sparse` supports the architecture and latents are many.
  """
  architecture, width = group.architecture, group.stacks[0].width
  alone = group.mesh.size == 1 and len(group.stacks) == 1
  is_cpu = group.mesh.devices.flat[0].platform == "cpu"
  if alone and is_cpu and width >= WIDE and sparse.supports(architecture):
    budget = sparse.budget(width)
    one = lambda each: sparse.gradients(
      architecture, each[0], tokens, each[1], budget
    )
    # Not vmap, which would compute both branches for each autoencoder.
    return jax.lax.map(one, (params, inputs))
  dense = jax.vmap(architecture.gradients, in_axes=(0, group.token_axes, 0))
  return dense(params, tokens, inputs)


def _update_inputs(
  group: Group, state: StackState, number: jax.Array
) -> UpdateInputs:
  warm = optim.sparsity_warmup(group.optim, number)
  wake_after = group.stacks[0].sweep.wakes_after or NEVER
  return UpdateInputs(
    coefficient=warm * group.per_member("coefficient"),
    target=jnp.asarray(group.per_member("target")),
    dead=state.tokens_since_fired >= wake_after,
  )


def _tokens_since_fired(state: StackState, stats: UpdateStats) -> jax.Array:
  tokens = stats.tokens.astype(jnp.int32)[:, None]
  grown = state.tokens_since_fired + tokens
  return jnp.minimum(jnp.where(stats.fired > 0, 0, grown), MAX_SINCE_FIRED)


def norms(params: Params) -> jax.Array:
  """Returns the norm of each autoencoder's gradient or weights, [S]."""
  return jax.vmap(optax.tree.norm)(params)


def _where_finite(
  finite: jax.Array, after: StackState, before: StackState
) -> StackState:
  """Returns each autoencoder after its update if that was finite, or before."""

  def choose(new, old):
    if new.ndim == 0:  # the count of updates grows for all
      return new
    return jnp.where(finite.reshape(-1, *(1,) * (new.ndim - 1)), new, old)

  return jax.tree.map(choose, after, before)


def diagnose(
  group: Group,
  before: StackState,
  after: StackState,
  activations: Activations,
  number: jax.Array,
) -> dict[str, jax.Array]:
  """Returns the architecture's own figures of a bucket: name → [S].

  Args:
    group: the group.
    before: its state before the bucket.
    after: its state after the bucket.
    activations: raw activations of the tokens of the bucket's last update.
    number: the number of that update.
  """
  tokens = group.update_tokens(activations.sites, activations.mask, after)
  inputs = group.constrain(_update_inputs(group, after, number))
  axes = (0, 0, group.token_axes, 0)
  figures = jax.vmap(group.architecture.diagnose, in_axes=axes)
  return figures(before.sae, after.sae, tokens, inputs)
