"""Outliers: tokens whose activation has a norm far above the others'.

A few of them would decide what an autoencoder learns, for its loss is a sum of
squares. Norms are told in units of the median one at their site, in the bucket.

Shapes: B rows, L tokens of each, D site width.
"""

import jax
import jax.numpy as jnp
from flax import struct

from jaxsae.lm import Site
from jaxsae.train.update import Activations


class Norms(struct.PyTreeNode):
  """The norms of one bucket.

  Attributes:
    largest: the largest norm at every site, in units of the median one.
    left_out: the number of outliers at every site; empty if none are left out.
  """

  largest: dict[Site, jax.Array]
  left_out: dict[Site, jax.Array]

  def __str__(self) -> str:
    ratios = (f"{site} {float(x):.3g}" for site, x in self.largest.items())
    line = f"largest norm of a token over the median: {', '.join(ratios)}"
    if not self.left_out:
      return line
    counts = (f"{site} {int(n):,}" for site, n in self.left_out.items())
    return f"{line}; tokens left out of this bucket: {', '.join(counts)}"


def largest(bucket: Activations) -> dict[Site, jax.Array]:
  """Returns the largest norm at every site, in units of the median one."""
  return {site: jnp.nanmax(x) for site, x in _in_medians(bucket).items()}


def leave_out(
  bucket: Activations, most: float | None
) -> tuple[Activations, dict[Site, jax.Array]]:
  """Masks tokens whose norm is an outlier at one site or more.

  They are left out at all sites, so that all autoencoders of a run are trained
  on the same tokens.

  Args:
    bucket: raw activations, [B, L, D] at every site.
    most: the largest norm that counts, in units of the median one; None leaves
      out nothing.

  Returns:
    The bucket, and the number of outliers at every site; of no site if `most`
    is None.
  """
  if most is None:
    return bucket, {}
  # Norms that are not finite stay, for the run's checks to find.
  above = {
    site: (x > most) & jnp.isfinite(x)
    for site, x in _in_medians(bucket).items()
  }
  mask = bucket.mask
  for outlier in above.values():
    mask = jnp.where(outlier, 0, mask)
  counts = {site: jnp.sum(x) for site, x in above.items()}
  return bucket.replace(mask=mask), counts


def _in_medians(bucket: Activations) -> dict[Site, jax.Array]:
  """Returns the norm of every token, [B, L], NaN for one that never counts."""
  text = lambda x: jnp.where(bucket.mask > 0, x, jnp.nan)
  norm = lambda x: text(jnp.linalg.norm(x.astype(jnp.float32), axis=-1))
  norms = {site: norm(x) for site, x in bucket.sites.items()}
  return {site: x / jnp.nanmedian(x) for site, x in norms.items()}
