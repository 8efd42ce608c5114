"""The metrics of stacks in one bucket.

Shapes: S autoencoders, U updates, B rows, L tokens of each, D, F latents.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import struct

from jaxsae.lm import Site
from jaxsae.train.group import Group
from jaxsae.train.state import StackState
from jaxsae.train.update import Activations, Update, norms


class Metrics(struct.PyTreeNode):
  """The metrics of the autoencoders of one stack, or of one group.

  Attributes:
    loss: [S], mean over tokens.
    l0: [S], mean active latents.
    fvu: [S], squared error / squared error of predicting the bucket's mean.
    coefficient: [S], λ of the last update.
    density_max: [S], the density of the latent that is active most often: its
      share of the bucket's tokens.
    tokens_since_fired: int32 [S, F], tokens since each latent was last active.
    broken: int32 [S], the first update whose loss or gradient was not finite,
      or the last update if only the weights are not finite; counted from 0 in
      the bucket; -1 if there is none.
    skipped: int32 [S], the number of such updates.
    figures: name → [S], the architecture's own figures.
  """

  loss: jax.Array
  l0: jax.Array
  fvu: jax.Array
  coefficient: jax.Array
  density_max: jax.Array
  tokens_since_fired: jax.Array
  broken: jax.Array
  skipped: jax.Array
  figures: dict[str, jax.Array]


def rounded(value: float) -> float:
  """Rounds to six digits, as in the log."""
  return float(f"{value:.6g}")


def squared_deviations(bucket: Activations) -> dict[Site, jax.Array]:
  """Returns Σ‖x - mean‖² over the bucket's tokens that count, by site."""
  return {
    site: _squared_deviation(x, bucket.mask) for site, x in bucket.sites.items()
  }


def _squared_deviation(x: jax.Array, mask: jax.Array) -> jax.Array:
  x, mask = x.astype(jnp.float32), mask[..., None]
  mean = jnp.sum(x * mask, axis=(0, 1)) / jnp.sum(mask)
  return jnp.sum(jnp.square(x - mean[None, None, :]) * mask)


def metrics_of_group(
  group: Group,
  after: StackState,
  fired: jax.Array,
  updates: Update,
  deviations: Mapping[Site, jax.Array],
  figures: dict[str, jax.Array],
) -> Metrics:
  """Forms the metrics of a group: ratios of sums over the whole bucket.

  Args:
    group: the group.
    after: its state after the bucket.
    fired: [S, F], on how many tokens each latent was active.
    updates: the figures of the updates, [U, S] each.
    deviations: Σ‖x - mean‖² of each site, from `squared_deviations`; those of
      the sites that an autoencoder writes are summed, each in its own scale.
    figures: the architecture's own figures.
  """
  finite = updates.finite
  kept = lambda x: jnp.sum(jnp.where(finite, x, 0), axis=0)
  tokens = kept(updates.tokens)  # if 0, the ratios are NaN
  share = tokens / jnp.sum(updates.tokens, axis=0)
  raw = share[:, None] * jnp.array(
    [[deviations[site] for site in sites] for sites in group.sites("writes")]
  )
  scale = after.target_scale.reshape(raw.shape)
  deviation = jnp.sum(raw / jnp.square(scale), axis=-1)
  return Metrics(
    loss=kept(updates.loss) / tokens,
    l0=jnp.sum(fired, axis=-1) / tokens,
    fvu=kept(updates.squared_error) / deviation,
    coefficient=updates.coefficient[-1],
    density_max=jnp.max(fired, axis=-1) / tokens,
    tokens_since_fired=after.tokens_since_fired,
    broken=_first_broken(finite, after),
    skipped=jnp.sum(~finite, axis=0),
    figures=figures,
  )


def _first_broken(finite: jax.Array, after: StackState) -> jax.Array:
  """Returns `Metrics.broken` from `Update.finite`, [U, S]."""
  # Checking weights once a bucket is enough: broken ones break the next loss.
  finite_weights = jnp.isfinite(norms(after.sae))
  late = jnp.where(finite_weights, -1, len(finite) - 1)
  return jnp.where(jnp.all(finite, axis=0), late, jnp.argmin(finite, axis=0))
