"""The activations of one step of text, to which controls are fitted.

Shapes: B batch, T time, D_in width of the sites read, D of those written.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp

from jaxsae import mesh as meshes
from jaxsae.evals.sparsity import capture_step
from jaxsae.evals.steps import Step
from jaxsae.lm import Lm, Site, Taps


@dataclasses.dataclass(frozen=True)
class Activations:
  """The activations of a step at all sites.

  Attributes:
    lm: the language model, whose mesh they are on.
    seen: site → activations [B, T, D].
    mask: where text is, [B, T].
    means: site → the mean over text, [D].
  """

  lm: Lm
  seen: Mapping[Site, jax.Array]
  mask: jax.Array
  means: Mapping[Site, jax.Array]

  @classmethod
  def of(cls, lm: Lm, every: Sequence[Taps], step: Step) -> "Activations":
    """Reads the sites of some taps."""
    found = meshes.wait_for(capture_step(lm, tuple(every), step.text))
    seen, mask, moments, _ = found
    return cls(lm, seen, mask, {site: m for site, (_, m) in moments.items()})

  def read(self, taps: Taps) -> list[jax.Array]:
    """Returns what is read, [B, T, D_in of a site] each."""
    return [self.seen[site] for site in taps.reads]

  def written(self, taps: Taps) -> list[jax.Array]:
    """Returns what is to be reconstructed, [B, T, D of a site] each."""
    return [self.seen[site] for site in taps.writes]

  def mean_read(self, taps: Taps) -> jax.Array:
    """Returns the mean of what is read, [D_in]."""
    return jnp.concatenate([self.means[site] for site in taps.reads])

  def mean_written(self, taps: Taps) -> jax.Array:
    """Returns the mean of what is to be reconstructed, [D]."""
    return jnp.concatenate([self.means[site] for site in taps.writes])
