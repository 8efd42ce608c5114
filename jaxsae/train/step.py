"""The step: reads one bucket of activations and trains all autoencoders on it.

  1. read the bucket from a source of activations (`sources/`). Text: scan, the
     frozen language model reads some rows at a time, and the activations of
     every site are kept;
  2. permute: every row of the bucket permutes its own tokens;
  3. move each stack to its placement (`group.py`);
  4. scan: each update takes the same number of tokens from every row and
     trains all autoencoders of all stacks on them;
  5. move the stacks back to their sharding between buckets.

A bucket never outlives its step, so there is no shuffle buffer to save. A
permutation never crosses a row, so shuffling costs no communication and does
not depend on how rows are sharded over devices.

Shapes: M microbatches, B rows in each, T time, L = M·T tokens of one row of
the bucket, U updates, K tokens that a row gives to an update, N = B·K;
S autoencoders in a stack or group, D site width, F latents.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jaxsae import mesh as meshes
from jaxsae.lm import Site
from jaxsae.sae.normalisation import estimate_scale
from jaxsae.train import outliers
from jaxsae.train.group import Group
from jaxsae.train.metrics import Metrics, metrics_of_group, squared_deviations
from jaxsae.train.placement.layout import sharding, spread
from jaxsae.train.state import StackState, TrainState
from jaxsae.train.update import (
  Activations,
  Progress,
  Update,
  diagnose,
  update_group,
)

# The scopes of the loops over microbatches and over updates, by which a
# compiled step is parsed (`plan/hlo.py`).
READS, UPDATES = "reads", "updates"

# (weights that reading needs, a source's batch) → the bucket; traced.
Read = Callable[[Any, Any], Activations]
Tree = TypeVar("Tree")


def compile_step(
  read: Read,
  groups: tuple[Group, ...],
  state: TrainState,
  weights: Any,
  batch: Any,
) -> jax.stages.Compiled:
  """Compiles `(state, weights, batch) -> (state, metrics of each stack)`.

  Arguments may be abstract: only shapes and shardings matter. The result runs
  for these alone, so nothing can ever be compiled a second time.

  Args:
    read: reads a bucket: the `read` of a source of activations.
    groups: all groups of the run.
    state: the state of the run.
    weights: the first argument of `read`, such as the language model.
    batch: its second argument, the batch of a bucket.
  """
  mesh = groups[0].mesh
  layout = sharding(state, mesh)
  jitted = jax.jit(
    functools.partial(step, read, groups),
    out_shardings=(layout, meshes.shard(mesh)),
    donate_argnums=0,
  )
  return jitted.lower(state, weights, batch).compile()


def step(
  read: Read,
  groups: tuple[Group, ...],
  state: TrainState,
  weights: Any,
  batch: Any,
) -> tuple[TrainState, tuple[Metrics, ...]]:
  """Reads a bucket and trains on it; for the arguments see `compile_step`."""
  bucket = read(weights, batch)
  updates = groups[0].schedule.per_bucket
  return train_bucket(groups, state, bucket, shuffle(state, bucket, updates))


def shuffle(state: TrainState, bucket: Activations, updates: int) -> jax.Array:
  """Permutes the tokens of each row and deals them to updates: int [U, B, K].

  The permutation depends on the state's key and step, and on the row.
  """
  rows, length = bucket.mask.shape
  key = jax.random.fold_in(state.key, state.step)
  keys = jax.vmap(lambda row: jax.random.fold_in(key, row))(jnp.arange(rows))
  order = jax.vmap(lambda k: jax.random.permutation(k, length))(keys)
  return jnp.swapaxes(order.reshape(rows, updates, -1), 0, 1)


def train_bucket(
  groups: tuple[Group, ...],
  state: TrainState,
  bucket: Activations,
  order: jax.Array,
) -> tuple[TrainState, tuple[Metrics, ...]]:
  """Trains all autoencoders on one bucket, in the precision of the run.

  Args:
    groups: all groups of the run.
    state: the state before the bucket.
    bucket: raw activations, [B, L, D] at every site.
    order: the tokens of each row that each update takes, int [U, B, K].

  Returns:
    The state after the bucket, and the metrics of each stack.
  """
  with jax.default_matmul_precision(groups[0].schedule.precision):
    return _train_bucket(groups, state, bucket, order)


def _train_bucket(
  groups: tuple[Group, ...],
  state: TrainState,
  bucket: Activations,
  order: jax.Array,
) -> tuple[TrainState, tuple[Metrics, ...]]:
  numbers = state.step * len(order) + jnp.arange(len(order))
  bucket, left_out = outliers.leave_out(bucket, groups[0].schedule.max_norm)
  states_before = [group.gather(state.stacks) for group in groups]
  final, updates = _update_all(groups, bucket, order, numbers, states_before)

  deviations = squared_deviations(bucket)
  last = take(groups[0].mesh, bucket, order[-1])
  metrics = [
    metrics_of_group(
      group,
      end.state,
      end.fired,
      of_group,
      deviations,
      diagnose(group, before, end.state, last, numbers[-1])
      | _outliers(group, left_out),
    )
    for group, before, end, of_group in zip(
      groups, states_before, final, updates, strict=True
    )
  ]
  after = state.replace(
    step=state.step + 1,
    stacks=_by_stack(groups, [end.state for end in final]),
  )
  return after, _by_stack(groups, metrics)


def _outliers(
  group: Group, left_out: Mapping[Site, jax.Array]
) -> dict[str, jax.Array]:
  """Returns the number of outliers where each autoencoder reads, [S]."""
  if not left_out:
    return {}
  read = [sum(left_out[site] for site in own) for own in group.sites("reads")]
  return {"outliers": jnp.stack(read).astype(jnp.float32)}


def _update_all(
  groups: tuple[Group, ...],
  bucket: Activations,
  order: jax.Array,
  numbers: jax.Array,
  states_before: Sequence[StackState],
) -> tuple[list[Progress], tuple[Update, ...]]:
  """Does all updates of a bucket, one after the other, in every group.

  Args:
    groups: all groups of the run.
    bucket: raw activations, [B, L, D] at every site.
    order: the tokens of each row that each update takes, int [U, B, K].
    numbers: the number of each update in the run, int [U].
    states_before: the state of each group before the bucket.

  Returns:
    The progress of each group, and the figures of its updates, [U, S].
  """

  def update(carry, numbered):
    chosen, number = numbered
    tokens = take(groups[0].mesh, bucket, chosen)
    done = [
      update_group(group, progress, tokens, number)
      for group, progress in zip(groups, carry, strict=True)
    ]
    after, updates = zip(*done, strict=True)
    return after, updates

  begin = tuple(map(_begin, groups, states_before))
  with jax.named_scope(UPDATES):
    final, updates = jax.lax.scan(update, begin, (order, numbers))
  # Keep the placement here: where stacks go next must not reach into the loop.
  final = [
    group.constrain(end) for group, end in zip(groups, final, strict=True)
  ]
  return final, updates


def _begin(group: Group, before: StackState) -> Progress:
  fired = jnp.zeros(before.tokens_since_fired.shape)
  return group.constrain(Progress(before, fired))


def _by_stack(
  groups: Sequence[Group], trees: Sequence[Tree]
) -> tuple[Tree, ...]:
  """Splits a tree of each group into a tree of each stack, in their order."""
  parts = {
    index: part
    for group, tree in zip(groups, trees, strict=True)
    for index, part in zip(group.indices, group.split(tree), strict=True)
  }
  return tuple(parts[index] for index in sorted(parts))


def take(mesh: Mesh, bucket: Activations, chosen: jax.Array) -> Activations:
  """Takes tokens [N, …] of a bucket [B, L, …] by their indices, int [B, K]."""

  def take_from(x):
    index = chosen.reshape(*chosen.shape, *(1,) * (x.ndim - 2))
    taken = jnp.take_along_axis(x, index, axis=1)
    return taken.reshape(-1, *x.shape[2:])

  # Tokens stay on the devices that hold them in the bucket.
  return Activations(
    spread(jax.tree.map(take_from, bucket.sites), mesh),
    meshes.constrain(take_from(bucket.mask), mesh, "data"),
  )


def estimate_scales(bucket: Activations) -> dict[Site, jax.Array]:
  """Estimates the scale of every site from one bucket."""
  return {
    site: estimate_scale(x, bucket.mask) for site, x in bucket.sites.items()
  }
