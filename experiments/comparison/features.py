"""Activations made of known features, as in SynthSAEBench (arXiv 2602.14687).

  x = Σ_i magnitude_i · direction_i + bias

Few features fire often and many rarely; some fire together; some are kinds of
others and fire only with them. Settings have the meaning they have in SAELens'
`SyntheticModel`, and its values there, but for how directions are spread.

Shapes: G features, D site width, n samples, R rank of the correlation.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from flax import struct

from jaxsae.errors import UserError

OWN = 0.01  # at least so much of a feature's variance is its own


@dataclasses.dataclass(frozen=True)
class Settings:
  """What the features are like; defaults are SynthSAEBench's.

  Trees come first: roots, then all their children, then theirs. So parents fire
  more often than children. Features left over are in no tree.
  """

  features: int = 16_384  # G
  width: int = 768  # D
  # Firing probabilities fall from the first feature's to the last one's as
  # rank^-exponent, stretched to these ends.
  most: float = 0.4
  least: float = 5e-4
  exponent: float = 0.5
  roots: int = 128  # trees; 0: none
  branching: int = 4  # children of a parent; one of them fires at a time
  depth: int = 3  # generations below the roots
  rank: int = 25  # R, common causes of firing
  correlation: float = 0.1  # of a feature with each cause; 0: independent
  # Descent on the squared cosines between directions.
  spreading_steps: int = 100
  spreading_rate: float = 0.1
  # Magnitudes are normal, cut at 0. Means go from the first feature's to the
  # last one's on a line; standard deviations are |normal|.
  first_mean: float = 5.0
  last_mean: float = 4.0
  std_mean: float = 0.5
  std_std: float = 0.5
  bias: float = 0.5  # its norm

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
    """Where each generation of all trees lies among the features.

    Siblings are neighbours, and in the order of their parents.
    """
    sizes = [self.roots * self.branching**g for g in range(self.depth + 1)]
    starts = [sum(sizes[:g]) for g in range(self.depth + 1)]
    pairs = zip(starts, sizes, strict=True)
    return tuple(slice(a, a + size) for a, size in pairs) if self.roots else ()

  @property
  def families(self) -> tuple[tuple[slice, slice], ...]:
    """Each generation with the one below it."""
    return tuple(zip(self.generations[:-1], self.generations[1:], strict=True))


@struct.dataclass
class Features:
  """Known features.

  Attributes:
    directions: [G, D], unit.
    bias: [D].
    probability: [G], how often each is to fire.
    cut: [G]; a feature is tried where a standard normal is above it.
    causes: [G, R]; that normal's part of each common cause.
    mean: [G], of magnitudes.
    std: [G], of magnitudes.
    settings: what they were made from.
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
  """Features that depend on the key and the settings alone."""
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
  """How often each feature [G] is tried, so that it fires as often as it is to.

  A child of P that is to fire with probability p fires only with P and only if
  it is chosen among the siblings tried. It is tried with p/P · (1 + Σ p'/P)
  over its siblings p', at most always. That is SAELens' first-order formula:
  the more often siblings are tried together, the further below p a child stays,
  and where siblings together are to fire more often than P none can reach p.
  """
  tried = probability
  for parents, children in settings.families:
    given = probability[children].reshape(-1, settings.branching)
    given = given / probability[parents][:, None]
    others = jnp.sum(given, axis=-1, keepdims=True) - given
    often = jnp.minimum(given * (1 + others), 1)
    tried = tried.at[children].set(often.reshape(-1))
  return tried


def causes(settings: Settings, normal: jax.Array) -> jax.Array:
  """Each feature's correlation with each common cause, [G, R].

  Two features' normals correlate by the product of their rows.
  """
  drawn = settings.correlation * normal
  explained = jnp.sum(jnp.square(drawn), axis=-1, keepdims=True)
  most = (1 - OWN) / jnp.maximum(explained, 1 - OWN)
  return drawn * jnp.sqrt(most)


def spread(settings: Settings, directions: jax.Array) -> jax.Array:
  """Unit directions [G, D] after descent on Σ_{i≠j} cos²(i, j).

  Its gradient is 4 (W Wᵀ - I) W = 4 (W (WᵀW) - W), which needs no G x G. In
  the second form it is divided by G/D, the mean eigenvalue of WᵀW, so that one
  rate suits all sizes. (SAELens descends the same sum by Adam.)
  """
  count, width = directions.shape
  crowding = max(count / width, 1)

  def step(_, w):
    pull = (w @ (w.T @ w) - w) / crowding
    return unit(w - settings.spreading_rate * pull)

  return jax.lax.fori_loop(0, settings.spreading_steps, step, unit(directions))


def unit(rows: jax.Array) -> jax.Array:
  return rows / jnp.linalg.norm(rows, axis=-1, keepdims=True)


@functools.partial(jax.jit, static_argnums=2)
def draw(
  features: Features, key: jax.Array, n: int
) -> tuple[jax.Array, jax.Array]:
  """Samples, which depend on the features, the key and n alone.

  Returns:
    Activations x [n, D] and the magnitudes [n, G] they are made of, 0 where a
    feature does not fire.
  """
  tried_key, size_key, choice_key = jax.random.split(key, 3)
  shape = n, features.settings.features
  noise = features.std[None, :] * jax.random.normal(size_key, shape)
  sizes = jax.nn.relu(features.mean[None, :] + noise)
  magnitudes = jnp.where(tried(features, tried_key, n), sizes, 0)
  magnitudes = inherit(features, choice_key, magnitudes)
  return magnitudes @ features.directions + features.bias[None, :], magnitudes


def tried(features: Features, key: jax.Array, n: int) -> jax.Array:
  """Which features [n, G] are tried: a Gaussian copula of low rank."""
  common_key, own_key = jax.random.split(key)
  common = jax.random.normal(common_key, (n, features.settings.rank))
  own = jax.random.normal(own_key, (n, features.settings.features))
  share = jnp.sqrt(1 - jnp.sum(jnp.square(features.causes), axis=-1))
  normal = common @ features.causes.T + share[None, :] * own
  return normal > features.cut[None, :]


def inherit(
  features: Features, key: jax.Array, magnitudes: jax.Array
) -> jax.Array:
  """Magnitudes [n, G] after the trees had their say, from the roots down.

  A child fires only if its parent does, and of siblings one, each alike. Its
  magnitude is multiplied by the parent's over the parent's mean.
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
  """One of the candidates of each group on the last axis, if there is one."""
  order = jnp.cumsum(candidates, axis=-1)
  count = order[..., -1:]
  chosen = jnp.floor(jax.random.uniform(key, count.shape) * count) + 1
  return candidates & (order == chosen)
