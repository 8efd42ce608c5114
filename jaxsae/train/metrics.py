"""How stacks did in one bucket.

Shapes: S autoencoders, U updates, B rows, L tokens of each, D, F latents.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import struct

from jaxsae.lm import Site
from jaxsae.train.group import Group
from jaxsae.train.state import StackState
from jaxsae.train.update import Update, norms


@struct.dataclass
class Metrics:
  """Of the autoencoders of one stack, or of one group.

  Attributes:
    loss: [S], mean over tokens.
    l0: [S], mean active latents.
    fvu: [S], squared error over that of predicting the bucket's mean.
    coefficient: [S], λ of the last update.
    density_max: [S], the share of the bucket's tokens on which the most active
      latent was.
    idle: int32 [S, F], tokens since each latent was last active.
    broken: int32 [S], the first update whose loss or gradient was not finite,
      or the last if only the weights that it left are not; counted in the
      bucket from 0; -1: none.
    skipped: int32 [S], how many such updates there were.
    figures: name → [S], what the architecture says of itself.
  """

  loss: jax.Array
  l0: jax.Array
  fvu: jax.Array
  coefficient: jax.Array
  density_max: jax.Array
  idle: jax.Array
  broken: jax.Array
  skipped: jax.Array
  figures: dict[str, jax.Array]


def rounded(value: float) -> float:
  """To six digits, as it is logged."""
  return float(f"{value:.6g}")


def spread(
  activations: Mapping[Site, jax.Array], mask: jax.Array
) -> dict[Site, jax.Array]:
  """Σ‖x - mean‖² over the masked tokens of raw x [B, L, D]."""
  return {site: _spread(x, mask) for site, x in activations.items()}


def _spread(x, mask):
  x, mask = x.astype(jnp.float32), mask[..., None]
  mean = jnp.sum(x * mask, axis=(0, 1)) / jnp.sum(mask)
  return jnp.sum(jnp.square(x - mean[None, None, :]) * mask)


def of_group(
  group: Group,
  after: StackState,
  fired: jax.Array,
  updates: Update,
  spread: Mapping[Site, jax.Array],
  figures: dict[str, jax.Array],
) -> Metrics:
  """Ratios of sums over the whole bucket.

  Args:
    group: what its autoencoders are.
    after: their state after the bucket.
    fired: [S, F], how often latents were active.
    updates: what was seen, [U, S] each.
    spread: of each site's activations.
    figures: what the architecture says.
  """
  finite = updates.finite
  kept = lambda x: jnp.sum(jnp.where(finite, x, 0), axis=0)
  tokens = kept(updates.tokens)  # if none, ratios are not a number
  raw = jnp.stack([spread[site] for site in group.sites("output")])
  raw *= tokens / jnp.sum(updates.tokens, axis=0)
  return Metrics(
    loss=kept(updates.loss) / tokens,
    l0=jnp.sum(fired, axis=-1) / tokens,
    fvu=kept(updates.squared_error) / (raw / jnp.square(after.target_scale)),
    coefficient=updates.coefficient[-1],
    density_max=jnp.max(fired, axis=-1) / tokens,
    idle=after.idle,
    broken=_first_broken(finite, after),
    skipped=jnp.sum(~finite, axis=0),
    figures=figures,
  )


def _first_broken(finite: jax.Array, after: StackState) -> jax.Array:
  """See `Metrics.broken`; from finite [U, S]."""
  # Once a bucket: weights that break before its end break the next loss too.
  finite_weights = jnp.isfinite(norms(after.sae))
  late = jnp.where(finite_weights, -1, len(finite) - 1)
  return jnp.where(jnp.all(finite, axis=0), late, jnp.argmin(finite, axis=0))
