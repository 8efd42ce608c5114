"""Activations made of known features, as in SynthSAEBench (arXiv 2602.14687).

  x = Σ_i magnitude_i · direction_i + bias

Few features fire often and many rarely; some fire together; some are children
of others and fire only with them. Settings have the meaning and the defaults
that they have in SAELens' `SyntheticModel`, except for those that make the
directions spread apart.

Shapes: G features, D site width, n samples, R rank of the correlation.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from flax import struct

from jaxsae.errors import UserError

LEAST_OWN = 0.01  # least share of a feature's variance that no common cause has


@dataclasses.dataclass(frozen=True)
class Settings:
  """Settings of the features; defaults are SynthSAEBench's.

  The trees come first: all roots, then all their children, then all their
  grandchildren. So parents fire more often than children. The remaining
  features are in no tree.
  """

  features: int = 16_384  # G
  width: int = 768  # D
  # Firing probabilities fall from the first feature's to the last one's as
  # rank^-exponent, stretched to these ends.
  most: float = 0.4
  least: float = 5e-4
  exponent: float = 0.5
  roots: int = 128  # number of trees
  branching: int = 4  # children per parent; at most one of them fires at a time
  depth: int = 3  # generations below the roots
  rank: int = 25  # R, the number of common causes of firing
  correlation: float = 0.1  # of a feature with each cause
  # Descent on the squared cosines between directions.
  spreading_steps: int = 100
  spreading_rate: float = 0.1
  # Magnitudes are normal, cut off at 0. Their means change linearly from the
  # first feature's to the last one's; their standard deviations are |normal|.
  first_mean: float = 5.0
  last_mean: float = 4.0
  std_mean: float = 0.5
  std_std: float = 0.5
  bias: float = 0.5  # norm of the bias

  def __post_init__(self):
    if not 0 < self.least <= self.most <= 1:
      raise UserError(
        f"least={self.least} and most={self.most} are not probabilities in"
        " order; give 0 < least ≤ most ≤ 1."
      )
    if self.generations and self.generations[-1].stop > self.features:
      raise UserError(
        f"The trees need {self.generations[-1].stop} features and there are"
        f" {self.features}; lower roots, branching or depth."
      )

  @property
  def generations(self) -> tuple[slice, ...]:
    """The features of each generation of all trees.

    Siblings are adjacent, in the order of their parents.
    """
    sizes = [self.roots * self.branching**g for g in range(self.depth + 1)]
    starts = [sum(sizes[:g]) for g in range(self.depth + 1)]
    pairs = zip(starts, sizes, strict=True)
    return tuple(slice(a, a + size) for a, size in pairs) if self.roots else ()

  @property
  def families(self) -> tuple[tuple[slice, slice], ...]:
    """(Parents, children) for each generation and the one below it."""
    return tuple(zip(self.generations[:-1], self.generations[1:], strict=True))


@struct.dataclass
class Features:
  """Known features.

  Attributes:
    directions: [G, D], unit.
    bias: [D].
    probability: [G], the intended frequency of firing.
    cut: [G]; a feature attempts to fire where a standard normal exceeds it.
    causes: [G, R], the weight of each common cause in that normal.
    mean: [G], of magnitudes.
    std: [G], of magnitudes.
    settings: the settings that they were made from.
  """

  directions: jax.Array
  bias: jax.Array
  probability: jax.Array
  cut: jax.Array
  causes: jax.Array
  mean: jax.Array
  std: jax.Array
  settings: Settings = struct.field(pytree_node=False)


@functools.partial(jax.jit, static_argnums=1)
def make(key: jax.Array, settings: Settings) -> Features:
  """Makes features that depend on the key and the settings alone."""
  s, count = settings, settings.features
  keys = jax.random.split(key, 4)
  probability = zipf(s)
  return Features(
    directions=spread(s, jax.random.normal(keys[0], (count, s.width))),
    bias=s.bias * unit(jax.random.normal(keys[1], (1, s.width)))[0],
    probability=probability,
    cut=-jax.scipy.special.ndtri(compensate(s, probability)),
    causes=causes(s, jax.random.normal(keys[2], (count, s.rank))),
    mean=jnp.linspace(s.first_mean, s.last_mean, count),
    std=jnp.abs(s.std_mean + s.std_std * jax.random.normal(keys[3], (count,))),
    settings=s,
  )


def zipf(settings: Settings) -> jax.Array:
  """Firing probabilities [G], the first `most` and the last `least`."""
  fall = jnp.arange(1, settings.features + 1.0) ** -settings.exponent
  share = (fall - fall[-1]) / (fall[0] - fall[-1])
  return settings.least + (settings.most - settings.least) * share


def compensate(settings: Settings, probability: jax.Array) -> jax.Array:
  """Frequencies of attempts [G] at which features fire as often as intended.

  A child that should fire with probability p, and its parent with P, fires only
  with its parent and only if it is chosen among the siblings that attempt to.
  It attempts with probability p/P · (1 + Σ p'/P), at most 1, where the sum is
  over its siblings. That is SAELens' first-order formula: the more often
  siblings attempt together, the further a child stays below p; and where the
  probabilities of siblings sum to more than P, none can reach its own.
  """
  attempts = probability
  for parents, children in settings.families:
    given = probability[children].reshape(-1, settings.branching)
    given = given / probability[parents][:, None]
    others = jnp.sum(given, axis=-1, keepdims=True) - given
    raised = jnp.minimum(given * (1 + others), 1)
    attempts = attempts.at[children].set(raised.reshape(-1))
  return attempts


def causes(settings: Settings, normal: jax.Array) -> jax.Array:
  """Each feature's correlation with each common cause, [G, R].

  The correlation of two features' normals is the inner product of their vectors
  [R].
  """
  drawn = settings.correlation * normal
  explained = jnp.sum(jnp.square(drawn), axis=-1, keepdims=True)
  most = (1 - LEAST_OWN) / jnp.maximum(explained, 1 - LEAST_OWN)
  return drawn * jnp.sqrt(most)


def spread(settings: Settings, directions: jax.Array) -> jax.Array:
  """Unit directions [G, D], spread apart by descent on Σ_{i≠j} cos²(i, j).

  The gradient is 4 (W Wᵀ - I) W = 4 (W (WᵀW) - W); the second form needs no
  G x G matrix. It is divided by G/D, the mean eigenvalue of WᵀW, so that one
  rate suits all sizes. (SAELens minimises the same sum with Adam.)
  """
  count, width = directions.shape
  crowding = max(count / width, 1)

  def step(_, w):
    gradient = (w @ (w.T @ w) - w) / crowding
    return unit(w - settings.spreading_rate * gradient)

  return jax.lax.fori_loop(0, settings.spreading_steps, step, unit(directions))


def unit(vectors: jax.Array) -> jax.Array:
  """Vectors [..., D] divided by their norms."""
  return vectors / jnp.linalg.norm(vectors, axis=-1, keepdims=True)


@functools.partial(jax.jit, static_argnums=2)
def draw(
  features: Features, key: jax.Array, n: int
) -> tuple[jax.Array, jax.Array]:
  """Draws samples that depend on the features, the key and n alone.

  Returns:
    Activations x [n, D] and the magnitudes [n, G] they are made of, 0 where a
    feature does not fire.
  """
  attempt_key, size_key, choice_key = jax.random.split(key, 3)
  shape = n, features.settings.features
  noise = features.std[None, :] * jax.random.normal(size_key, shape)
  sizes = jax.nn.relu(features.mean[None, :] + noise)
  magnitudes = jnp.where(attempts(features, attempt_key, n), sizes, 0)
  magnitudes = apply_trees(features, choice_key, magnitudes)
  return magnitudes @ features.directions + features.bias[None, :], magnitudes


def attempts(features: Features, key: jax.Array, n: int) -> jax.Array:
  """True where a feature attempts to fire, [n, G]; a Gaussian copula."""
  common_key, own_key = jax.random.split(key)
  common = jax.random.normal(common_key, (n, features.settings.rank))
  own = jax.random.normal(own_key, (n, features.settings.features))
  share = jnp.sqrt(1 - jnp.sum(jnp.square(features.causes), axis=-1))
  normal = common @ features.causes.T + share[None, :] * own
  return normal > features.cut[None, :]


def apply_trees(
  features: Features, key: jax.Array, magnitudes: jax.Array
) -> jax.Array:
  """Magnitudes [n, G] after the rules of the trees, from the roots down.

  A child fires only if its parent does. Of the siblings that attempt to, one
  fires, each with the same probability. Its magnitude is multiplied by the
  parent's magnitude divided by the parent's mean.
  """
  for g, (parents, children) in enumerate(features.settings.families):
    above = magnitudes[:, parents]
    below = magnitudes[:, children]
    below = below.reshape(*above.shape, features.settings.branching)
    below = jnp.where(one_of(jax.random.fold_in(key, g), below > 0), below, 0)
    below *= (above / features.mean[None, parents])[..., None]
    below = below.reshape(len(below), -1)
    magnitudes = magnitudes.at[:, children].set(below)
  return magnitudes


def one_of(key: jax.Array, candidates: jax.Array) -> jax.Array:
  """Keeps one random candidate of each group along the last axis, if any."""
  order = jnp.cumsum(candidates, axis=-1)
  count = order[..., -1:]
  chosen = jnp.floor(jax.random.uniform(key, count.shape) * count) + 1
  return candidates & (order == chosen)
