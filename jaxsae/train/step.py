"""The step: one bucket of tokens through the LM and into every autoencoder.

  1. scan: the frozen language model reads the bucket, some rows at a time, and
     the activations of every tapped site are kept;
  2. every row of the batch permutes its own tokens;
  3. stacks go where they are trained (`group.py`);
  4. scan: each update takes the same number of tokens from every row and
     trains all autoencoders of all stacks on them;
  5. stacks go back to where they rest.

A bucket never outlives its step, so there is no shuffle buffer to save, and a
permutation never crosses a row, so shuffling costs no communication and does
not depend on how rows are spread over devices.

Shapes: M microbatches, B rows in each, T time, L = M·T tokens of one row of
the batch (a lane), U updates, K tokens a lane gives to an update, N = B·K;
S autoencoders in a stack or group, D site width, F latents.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jaxsae import mesh as meshes
from jaxsae.lm import GemmaConfig, Lm, capture
from jaxsae.lm.weights import abstract_lm
from jaxsae.sae.normalisation import estimate_scale
from jaxsae.token_batch import TokenBatch
from jaxsae.train import metrics as figures
from jaxsae.train.config.run import TrainConfig
from jaxsae.train.group import Group, groups
from jaxsae.train.metrics import Metrics
from jaxsae.train.placement.layout import sharding
from jaxsae.train.state import TrainState, abstract_state
from jaxsae.train.update import Progress, Tokens, diagnose, update_group

# The scopes of the loops over microbatches and over updates, by which a
# compiled step is read (`plan/hlo.py`).
READS, UPDATES = "reads", "updates"


def compile_step(
  config: TrainConfig, mesh: Mesh, state: TrainState, lm: Lm, batch: TokenBatch
) -> jax.stages.Compiled:
  """Compiles `(state, lm, batch) -> (state, metrics of each stack)`.

  Arguments may be abstract: only shapes and shardings matter. The result runs
  for these alone, so nothing can ever be compiled a second time.
  """
  layout = sharding(state, mesh)
  jitted = jax.jit(
    functools.partial(step, config, mesh),
    out_shardings=(layout, meshes.shard(mesh)),
    donate_argnums=0,
  )
  return jitted.lower(state, lm, batch).compile()


def abstract_arguments(
  config: TrainConfig, gemma: GemmaConfig, mesh: Mesh, dtype=jnp.bfloat16
) -> tuple[TrainState, Lm, TokenBatch]:
  """The state, language model and batch of a step as shapes and shardings.

  Args:
    config: the run's.
    gemma: the language model's sizes.
    mesh: of devices that need not exist here.
    dtype: of the language model's weights.
  """
  return (
    abstract_state(config, gemma, mesh),
    abstract_lm(gemma, mesh, config.fsdp, dtype),
    _abstract_batch(config, mesh),
  )


def _abstract_batch(
  config: TrainConfig, mesh: Mesh
) -> TokenBatch[jax.ShapeDtypeStruct]:
  shape = (config.bucket.microbatches, config.bucket.rows, config.data.context)
  layout = meshes.shard(mesh, None, "data", None)
  ids = jax.ShapeDtypeStruct(shape, jnp.int32, sharding=layout)
  return TokenBatch(positions=ids, segments=ids, tokens=ids)


def step(
  config: TrainConfig, mesh: Mesh, state: TrainState, lm: Lm, batch: TokenBatch
) -> tuple[TrainState, tuple[Metrics, ...]]:
  """Trains on one bucket."""
  activations, mask = harvest(config, mesh, lm, batch)
  order = shuffle(config, state, mask)
  first = state.step * config.updates_per_bucket
  numbers = first + jnp.arange(config.updates_per_bucket)
  dtype = activations[config.sites[0]].dtype
  trained = groups(config, mesh, state.stacks, dtype)

  def draw(chosen, number) -> Tokens:
    taken = {site: take(x, chosen) for site, x in activations.items()}
    tokens = Tokens(taken, take(mask, chosen), number)
    # Each row's where that row is.
    return meshes.constrain(tokens, mesh, "data")

  def update(carry, numbered):
    tokens = draw(*numbered)
    done = [
      update_group(config, mesh, group, progress, tokens)
      for group, progress in zip(trained, carry, strict=True)
    ]
    return tuple(zip(*done, strict=True))

  befores = [group.gather(state.stacks, mesh) for group in trained]
  begin = tuple(
    group.keep(Progress(before, jnp.zeros(before.idle.shape)), mesh)
    for group, before in zip(trained, befores, strict=True)
  )
  with jax.named_scope(UPDATES):
    ends, seen = jax.lax.scan(update, begin, (order, numbers))
  # Still in their place: where they go next must not reach into the loop.
  ends = [
    group.keep(end, mesh) for group, end in zip(trained, ends, strict=True)
  ]

  spread = figures.spread(activations, mask)
  last = draw(order[-1], numbers[-1])
  metrics = [
    figures.of_group(
      group,
      end.state,
      end.fired,
      updates,
      spread,
      diagnose(mesh, group, before, end.state, last),
    )
    for group, before, end, updates in zip(
      trained, befores, ends, seen, strict=True
    )
  ]
  return (
    state.replace(
      step=state.step + 1,
      stacks=_apart(mesh, trained, [end.state for end in ends]),
    ),
    _apart(mesh, trained, metrics),
  )


def _apart(mesh: Mesh, trained: Sequence[Group], trees: Sequence[Any]) -> tuple:
  """What is of each group → what is of each stack, in their own order."""
  parts = {
    index: part
    for group, tree in zip(trained, trees, strict=True)
    for index, part in zip(group.indices, group.split(tree, mesh), strict=True)
  }
  return tuple(parts[index] for index in sorted(parts))


def harvest(config: TrainConfig, mesh: Mesh, lm: Lm, batch: TokenBatch):
  """The LM's activations: {site: [B, L, D]}, and the mask [B, L].

  Special tokens and padding are masked: they are never trained on.
  """

  def read(_, rows):
    seen = capture(lm, rows.tokens, *config.sites, **rows.packing)
    dtype = config.bucket.dtype
    return None, {s: x.astype(dtype or x.dtype) for s, x in seen.items()}

  def lanes(x):  # [M, B, T, …] → [B, L, …]
    x = jnp.swapaxes(x, 0, 1)
    x = x.reshape(x.shape[0], -1, *x.shape[3:])
    return jax.lax.with_sharding_constraint(x, meshes.shard(mesh, "data"))

  with jax.named_scope(READS):
    _, seen = jax.lax.scan(read, None, batch)
  mask = lanes(lm.text_mask(batch.tokens, batch.segments))
  return {site: lanes(x) for site, x in seen.items()}, mask


def shuffle(config: TrainConfig, state: TrainState, mask: jax.Array):
  """Which tokens of its lane each row gives to each update: int [U, B, K]."""
  rows, lane = mask.shape
  key = jax.random.fold_in(state.key, state.step)
  keys = jax.vmap(lambda row: jax.random.fold_in(key, row))(jnp.arange(rows))
  order = jax.vmap(lambda k: jax.random.permutation(k, lane))(keys)
  order = order.reshape(rows, config.updates_per_bucket, -1)
  return jnp.swapaxes(order, 0, 1)


def take(x: jax.Array, order: jax.Array) -> jax.Array:
  """Tokens [N, …] of x [B, L, …] by order [B, K]."""
  index = order.reshape(*order.shape, *(1,) * (x.ndim - 2))
  chosen = jnp.take_along_axis(x, index, axis=1)
  return chosen.reshape(-1, *x.shape[2:])


def estimate_scales(
  config: TrainConfig, mesh: Mesh, lm: Lm, batch: TokenBatch
) -> list[tuple[jax.Array, jax.Array]]:
  """The scales of what each stack reads and reconstructs, from one bucket."""
  activations, mask = harvest(config, mesh, lm, batch)
  scales = {site: estimate_scale(x, mask) for site, x in activations.items()}
  return [
    (scales[stack.site.input], scales[stack.site.output])
    for stack in config.stacks
  ]
