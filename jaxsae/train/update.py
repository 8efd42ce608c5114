"""One update of the autoencoders of one group.

Shapes: S autoencoders, N tokens, D site width, F latents.
"""

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax.sharding import Mesh

from jaxsae.lm import Site
from jaxsae.sae import UpdateInputs, UpdateStats, UpdateTokens, sparse
from jaxsae.sae.architectures.architecture import Params
from jaxsae.train import optim
from jaxsae.train.config.run import TrainConfig
from jaxsae.train.group import Group
from jaxsae.train.state import StackState

MOST_IDLE = 2**30  # where the count of idle tokens stops growing
NEVER = 2**31 - 1  # a count that is never reached
WIDE = 16_384  # the least width at which few pairs are worth a try


@struct.dataclass
class Tokens:
  """What all groups are updated on at once.

  Attributes:
    activations: of every site, raw, [N, D].
    mask: [N], 1 for tokens that count.
    number: int32 [], of the update, counted from 0.
  """

  activations: dict[Site, jax.Array]
  mask: jax.Array
  number: jax.Array


@struct.dataclass
class Progress:
  """How far one group is in a bucket.

  Attributes:
    state: its stacks' as one.
    fired: [S, F], how often latents were active so far.
  """

  state: StackState
  fired: jax.Array


@struct.dataclass
class Update:
  """What one update of one group leaves for the metrics, [S] each.

  Attributes:
    tokens: n, that count.
    loss: Σ over them.
    squared_error: Σ over them.
    coefficient: λ.
    finite: bool, whether loss and gradient are finite; and the new weights,
      where what is not is skipped.
  """

  tokens: jax.Array
  loss: jax.Array
  squared_error: jax.Array
  coefficient: jax.Array
  finite: jax.Array


def update_group(
  config: TrainConfig,
  mesh: Mesh,
  group: Group,
  progress: Progress,
  tokens: Tokens,
) -> tuple[Progress, Update]:
  """One update of S autoencoders.

  Args:
    config: the run's.
    mesh: of the devices.
    group: what they are.
    progress: their state and count.
    tokens: what to update them on.
  """
  progress = group.keep(progress, mesh)
  before = progress.state
  rows = group.rows(tokens.activations, tokens.mask, before, mesh)
  inputs = group.keep(_update_inputs(group, before, tokens.number), mesh)
  grads, seen = _gradients(mesh, group, before.sae, rows, inputs)
  # Summed here; the optimiser works where the arrays are.
  grads, seen = group.keep((grads, seen), mesh)
  warm = optim.learning_rate(group.optim, config.updates, tokens.number)
  sae, moments = optim.apply(
    group.optim,
    group.architecture,
    before.sae,
    grads,
    before.moments,
    warm * group.each("lr"),
    seen.post_update_stats,
  )
  after = before.replace(sae=sae, moments=moments, idle=_idle(before, seen))
  finite = jnp.isfinite(seen.loss) & jnp.isfinite(norms(grads))
  if config.not_finite == "skip":
    finite &= jnp.isfinite(norms(sae))
    after = _chosen(finite, after, before)
    seen = seen.replace(fired=jnp.where(finite[:, None], seen.fired, 0))
  update = Update(
    tokens=seen.tokens,
    loss=seen.loss,
    squared_error=seen.squared_error,
    coefficient=inputs.coefficient,
    finite=finite,
  )
  progress = Progress(after, progress.fired + seen.fired)
  return group.keep(progress, mesh), update


def _gradients(
  mesh: Mesh, group: Group, params, rows: UpdateTokens, inputs: UpdateInputs
):
  """Of all latents, or, on one CPU and where it is quicker, of few pairs."""
  architecture, width = group.architecture, group.stacks[0].width
  alone = mesh.size == 1 and len(group.stacks) == 1
  is_cpu = mesh.devices.flat[0].platform == "cpu"
  if alone and is_cpu and width >= WIDE and sparse.supports(architecture):
    budget = sparse.budget(width)
    one = lambda each: sparse.gradients(
      architecture, each[0], rows, each[1], budget
    )
    # Not vmap, which would take both ways for each.
    return jax.lax.map(one, (params, inputs))
  of_all = jax.vmap(architecture.gradients, in_axes=(0, group.axes, 0))
  return of_all(params, rows, inputs)


def _update_inputs(
  group: Group, state: StackState, number: jax.Array
) -> UpdateInputs:
  warm = optim.sparsity_warmup(group.optim, number)
  wake_after = group.stacks[0].sweep.wake_after or NEVER
  return UpdateInputs(
    coefficient=warm * group.each("coefficient"),
    target=jnp.asarray(group.each("target")),
    dead=state.idle >= wake_after,
  )


def _idle(state: StackState, seen: UpdateStats) -> jax.Array:
  tokens = seen.tokens.astype(jnp.int32)[:, None]
  idle = jnp.where(seen.fired > 0, 0, state.idle + tokens)
  return jnp.minimum(idle, MOST_IDLE)


def norms(params: Params) -> jax.Array:
  """Of each autoencoder's gradient or weights, [S]."""
  return jax.vmap(optax.tree.norm)(params)


def _chosen(finite: jax.Array, after: StackState, before: StackState):
  """For each autoencoder, what the update made of it, or what it was."""

  def choose(new, old):
    if new.ndim == 0:  # the count of updates goes on for all
      return new
    return jnp.where(finite.reshape(-1, *(1,) * (new.ndim - 1)), new, old)

  return jax.tree.map(choose, after, before)


def diagnose(
  mesh: Mesh,
  group: Group,
  before: StackState,
  after: StackState,
  tokens: Tokens,
) -> dict[str, jax.Array]:
  """What the architecture says of a bucket: name → [S].

  Args:
    mesh: of the devices.
    group: what its autoencoders are.
    before: their state before the bucket.
    after: their state after it.
    tokens: of its last update.
  """
  rows = group.rows(tokens.activations, tokens.mask, after, mesh)
  inputs = group.keep(_update_inputs(group, after, tokens.number), mesh)
  tell = group.architecture.diagnose
  return jax.vmap(tell, in_axes=(0, 0, group.axes, 0))(
    before.sae, after.sae, rows, inputs
  )
