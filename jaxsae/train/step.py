"""The step: one bucket of tokens through the LM and into every autoencoder.

  1. scan: the frozen language model reads the bucket, some rows at a time, and
     the activations of every tapped site are kept;
  2. every row of the batch permutes its own tokens;
  3. scan: each update takes the same number of tokens from every row and
     trains all autoencoders of all stacks on them.

A bucket never outlives its step, so there is no shuffle buffer to save, and a
permutation never crosses a row, so shuffling costs no communication and does
not depend on how rows are spread over devices.

Shapes: M microbatches, B rows in each, T time, L = M·T tokens of one row of
the batch (a lane), U updates, K tokens a lane gives to an update, N = B·K;
S autoencoders in a stack, D site width, F latents.
"""

import functools

import jax
import jax.numpy as jnp
from flax import struct
from jax.sharding import Mesh

from jaxsae import mesh as meshes
from jaxsae import sae as saes
from jaxsae.lm import Lm, capture
from jaxsae.sae.scale import estimate
from jaxsae.train import optim
from jaxsae.train import state as states
from jaxsae.train.config import TrainConfig
from jaxsae.train.state import StackState, TrainState

Batch = dict[str, jax.Array]  # tokens, segments, positions: int [M, B, T]
MOST_IDLE = 2**30  # where the count of idle tokens stops growing
NEVER = 2**31 - 1  # a count that is never reached


@struct.dataclass
class Metrics:
  """How one stack did in one bucket.

  Attributes:
    loss: [S], mean over tokens.
    l0: [S], mean active latents.
    fvu: [S], squared error over that of predicting the bucket's mean.
    in_window: [S], share of pre-activations inside the kernel.
    coefficient: [S], λ of the last update.
    pull: [S], the penalties' share in what thresholds are pulled by: Σ|∂/∂θ| of
      the penalties, over that and Σ|∂/∂θ| of the rest of the loss.
    density_mean: [S], over latents, of the share of the bucket's tokens on
      which a latent was active.
    density_max: [S], that of the most active one.
    idle: int32 [S, F], tokens since each latent was last active.
    threshold: [S], mean θ.
    moved: [S], mean |Δθ| since the bucket before, over mean θ there.
  """

  loss: jax.Array
  l0: jax.Array
  fvu: jax.Array
  in_window: jax.Array
  coefficient: jax.Array
  pull: jax.Array
  density_mean: jax.Array
  density_max: jax.Array
  idle: jax.Array
  threshold: jax.Array
  moved: jax.Array


@struct.dataclass
class Seen:
  """What one update of one stack leaves for the metrics.

  Attributes:
    sums: over its tokens, [S] each.
    penalty_pull: [S], Σ|∂/∂θ| of the penalties.
    other_pull: [S], Σ|∂/∂θ| of the rest of the loss.
    coefficient: [S], λ.
  """

  sums: saes.Sums
  penalty_pull: jax.Array
  other_pull: jax.Array
  coefficient: jax.Array


def compile_step(
  config: TrainConfig, mesh: Mesh, state: TrainState, lm: Lm, batch: Batch
) -> jax.stages.Compiled:
  """Compiles `(state, lm, batch) -> (state, metrics of each stack)`.

  Arguments may be abstract: only shapes and shardings matter. The result runs
  for these alone, so nothing can ever be compiled a second time.
  """
  layout = states.sharding(state, mesh)
  jitted = jax.jit(
    functools.partial(step, config, mesh),
    out_shardings=(layout, meshes.shard(mesh)),
    donate_argnums=0,
  )
  return jitted.lower(state, lm, batch).compile()


def step(
  config: TrainConfig, mesh: Mesh, state: TrainState, lm: Lm, batch: Batch
) -> tuple[TrainState, tuple[Metrics, ...]]:
  """Trains on one bucket."""
  activations, mask = harvest(config, mesh, lm, batch)
  order = shuffle(config, state, mask)
  update = functools.partial(_update, config, activations, mask)
  first = state.step * config.updates_per_bucket
  numbers = first + jnp.arange(config.updates_per_bucket)
  begin = tuple((s, jnp.zeros_like(s.sae.threshold)) for s in state.stacks)
  ends, seen = jax.lax.scan(update, begin, (numbers, order))
  stacks, fired = zip(*ends, strict=True)
  variances = [
    spread(activations[s.site], mask, stack.scale)
    for s, stack in zip(config.sae.stacks, stacks, strict=True)
  ]
  metrics = tuple(map(_metrics, state.stacks, stacks, seen, fired, variances))
  return state.replace(step=state.step + 1, stacks=stacks), metrics


def harvest(config: TrainConfig, mesh: Mesh, lm: Lm, batch: Batch):
  """The LM's activations: {site: [B, L, D]}, and the mask [B, L].

  Special tokens and padding are masked: they are never trained on.
  """

  def read(_, rows):
    packing = {k: rows[k] for k in ("segments", "positions")}
    return None, capture(lm, rows["tokens"], *config.sae.sites, **packing)

  def lanes(x):  # [M, B, T, …] → [B, L, …]
    x = jnp.swapaxes(x, 0, 1)
    x = x.reshape(x.shape[0], -1, *x.shape[3:])
    return jax.lax.with_sharding_constraint(x, meshes.shard(mesh, "data"))

  _, seen = jax.lax.scan(read, None, batch)
  mask = lanes(lm.text_mask(batch["tokens"], batch["segments"]))
  return {site: lanes(x) for site, x in seen.items()}, mask


def shuffle(config: TrainConfig, state: TrainState, mask: jax.Array):
  """Which tokens of its lane each row gives to each update: int [U, B, K]."""
  rows, lane = mask.shape
  key = jax.random.fold_in(state.key, state.step)
  keys = jax.vmap(lambda row: jax.random.fold_in(key, row))(jnp.arange(rows))
  order = jax.vmap(lambda k: jax.random.permutation(k, lane))(keys)
  order = order.reshape(rows, config.updates_per_bucket, -1)
  return jnp.swapaxes(order, 0, 1)


def _update(config, activations, mask, carry, numbered):
  """One update of every stack on the same tokens.

  The carry has each stack's state, and how often its latents fired so far.
  """
  number, order = numbered
  take = lambda x: _take(x, order)
  mask = take(mask)
  inputs = {site: take(x) for site, x in activations.items()}
  results = [
    update_stack(config, stack, inputs[s.site], mask, number)
    for s, (stack, _) in zip(config.sae.stacks, carry, strict=True)
  ]
  stacks, seen, fired = zip(*results, strict=True)
  total = [so_far + now for (_, so_far), now in zip(carry, fired, strict=True)]
  return tuple(zip(stacks, total, strict=True)), seen


def _take(x, order):
  """Tokens [N, …] of x [B, L, …] by order [B, K]."""
  index = order.reshape(*order.shape, *(1,) * (x.ndim - 2))
  chosen = jnp.take_along_axis(x, index, axis=1)
  return chosen.reshape(-1, *x.shape[2:])


def update_stack(config, stack: StackState, x, mask, number):
  """One update of S autoencoders.

  Args:
    config: how.
    stack: their state.
    x: raw activations [N, D].
    mask: [N], 1 for tokens that count.
    number: int32 [], of the update, counted from 0.

  Returns:
    The new state, what was seen, and how often each latent fired, [S, F].
  """
  x = x.astype(jnp.float32) / stack.scale
  warm = optim.sparsity_warmup(config.optim, number)
  coefficients = warm * jnp.array(config.sae.coefficients)
  targets = jnp.array(config.sae.target_l0 or config.sae.coefficients)

  def gradients(sae, dead, coefficient, target):
    objective = config.sae.objective
    return saes.gradients(sae, x, mask, dead, objective, coefficient, target)

  dead = stack.idle >= (config.sae.wake_after or NEVER)
  grads, pull, (sums, fired) = jax.vmap(gradients)(
    stack.sae, dead, coefficients, targets
  )
  rate = optim.learning_rate(config.optim, config.updates, number)
  sae, moments = optim.apply(
    config.optim, stack.sae, grads, stack.moments, rate
  )
  tokens = sums.tokens[0].astype(jnp.int32)
  idle = jnp.where(fired > 0, 0, stack.idle + tokens)
  idle = jnp.minimum(idle, MOST_IDLE)
  seen = Seen(
    sums=sums,
    penalty_pull=jnp.sum(jnp.abs(pull), axis=-1),
    other_pull=jnp.sum(jnp.abs(grads.threshold - pull), axis=-1),
    coefficient=coefficients,
  )
  return stack.replace(sae=sae, moments=moments, idle=idle), seen, fired


def spread(x: jax.Array, mask: jax.Array, scale: jax.Array):
  """Σ‖x - mean‖² over the masked tokens of scaled x [B, L, D]."""
  x = x.astype(jnp.float32) / scale
  mask = mask[..., None]
  mean = jnp.sum(x * mask, axis=(0, 1)) / jnp.sum(mask)
  return jnp.sum(jnp.square(x - mean[None, None, :]) * mask)


def _metrics(
  before: StackState, after: StackState, seen: Seen, fired, variance
) -> Metrics:
  """Ratios of sums over the whole bucket; `seen` is stacked over updates."""
  total, penalty, other = jax.tree.map(
    lambda x: jnp.sum(x, axis=0),
    (seen.sums, seen.penalty_pull, seen.other_pull),
  )
  density = fired / total.tokens[:, None]
  was, now = before.sae.threshold, after.sae.threshold
  return Metrics(
    loss=total.loss / total.tokens,
    l0=total.l0 / total.tokens,
    fvu=total.squared_error / variance,
    in_window=total.in_window / total.tokens,
    coefficient=seen.coefficient[-1],
    pull=_over(penalty, penalty + other),
    density_mean=jnp.mean(density, axis=-1),
    density_max=jnp.max(density, axis=-1),
    idle=after.idle,
    threshold=jnp.mean(now, axis=-1),
    moved=_over(jnp.mean(jnp.abs(now - was), axis=-1), jnp.mean(was, axis=-1)),
  )


def _over(part, whole):
  """part / whole, and 0 where both are 0."""
  return part / jnp.where(whole > 0, whole, 1)


def estimate_scales(
  config: TrainConfig, mesh: Mesh, lm: Lm, batch: Batch
) -> tuple[jax.Array, ...]:
  """The scale of each stack's site, from one bucket."""
  activations, mask = harvest(config, mesh, lm, batch)
  scales = {site: estimate(x, mask) for site, x in activations.items()}
  return tuple(scales[stack.site] for stack in config.sae.stacks)
