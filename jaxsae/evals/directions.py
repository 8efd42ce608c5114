"""Cosines between the directions of latents, of one autoencoder or of two.

Shapes: F latents, G those of another autoencoder, D width of the site.
"""

import dataclasses
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxsae import pod
from jaxsae.sae import Sae

_MOST = 4096  # latents whose directions are compared with all others
_AT_ONCE = 2**26  # cosines in memory
_DEAD = "dead"


def interference(sae: Sae) -> float:
  """Returns the mean over latents of the largest cosine with another one.

  Of more than 4,096 latents, so many are drawn, the same ones each time; they
  are compared with all.
  """
  drawn = _drawn(sae.width)
  return float(np.mean(largest_cosines(sae, sae, drawn)))


@dataclasses.dataclass(frozen=True)
class Agreement:
  """How many latents of one autoencoder another one has too.

  Attributes:
    latents: the number of latents that were compared.
    above_0_7: share of them with a partner whose direction has a cosine above
      0.7 with theirs.
    above_0_9: the same above 0.9.
    by_density: label of a range of densities → latents in it, and the two
      shares among them.
  """

  latents: int
  above_0_7: float
  above_0_9: float
  by_density: dict[str, tuple[int, float, float]]


def agreement(
  one: Sae, other: Sae, density: np.ndarray | None = None
) -> Agreement:
  """Compares the directions of two autoencoders, such as of two seeds.

  A partner is the latent of the other with the nearest direction; several may
  share it. (Paulo and Belrose 2025, arXiv 2501.16615, pair them off instead.)

  Args:
    one: the autoencoder whose latents are counted; of more than 4,096, so many
      are drawn.
    other: the one in which partners are sought.
    density: [F], the density of each of the latents, for shares by density.
  """
  drawn = _drawn(one.width)
  cosines = largest_cosines(one, other, drawn)
  shares = lambda x: (float(np.mean(x > 0.7)), float(np.mean(x > 0.9)))
  by_density = {}
  if density is not None:
    labels = np.array([_decade(x) for x in density[drawn]])
    for label in sorted(set(labels)):
      within = cosines[labels == label]
      by_density[str(label)] = (len(within), *shares(within))
  return Agreement(len(drawn), *shares(cosines), by_density)


def _decade(density: float) -> str:
  """Returns the label of a range of densities, such as "1e-3 to 1e-2"."""
  if density <= 0:
    return _DEAD
  power = min(int(np.floor(np.log10(density))), -1)
  return f"1e{power} to 1e{power + 1}"


def largest_cosines(
  one: Sae, other: Sae, latents: Sequence[int] | np.ndarray
) -> np.ndarray:
  """Returns each latent's largest cosine with a direction of another.

  Args:
    one: the autoencoder of the latents.
    other: the one that is searched; if it is the same object, a latent is not
      compared with itself.
    latents: their numbers.

  Returns:
    [latents]; 0 for a direction of zeros.
  """
  rows = max(1, min(len(latents), _AT_ONCE // other.width))
  numbers = np.asarray(latents, np.int32)
  blocks = np.pad(numbers, (0, -len(numbers) % rows)).reshape(-1, rows)
  found = _largest(one.w_dec, other.w_dec, blocks, one is other)
  return pod.to_host(found).reshape(-1)[: len(numbers)]


@functools.partial(jax.jit, static_argnames="same")
def _largest(
  one: jax.Array, other: jax.Array, blocks: jax.Array, same: bool
) -> jax.Array:
  """Returns the largest cosines of blocks of latents, [blocks, rows]."""
  one, other = _unit(one), _unit(other)

  def of_block(latents):
    with jax.default_matmul_precision("highest"):
      cosines = one[latents] @ other.T
    if same:
      own = latents[:, None] == jnp.arange(other.shape[0])[None, :]
      cosines = jnp.where(own, -jnp.inf, cosines)
    return jnp.max(cosines, axis=1)

  return jax.lax.map(of_block, blocks)


def _unit(directions: jax.Array) -> jax.Array:
  """Returns directions [F, D] of norm 1; zeros stay zeros."""
  x = directions.astype(jnp.float32)
  norms = jnp.linalg.norm(x, axis=-1, keepdims=True)
  return x / jnp.where(norms > 0, norms, 1)


def _drawn(width: int) -> np.ndarray:
  """Returns the numbers of the latents that are compared, in order."""
  if width <= _MOST:
    return np.arange(width)
  drawn = np.random.default_rng(0).choice(width, _MOST, replace=False)
  return np.sort(drawn)
