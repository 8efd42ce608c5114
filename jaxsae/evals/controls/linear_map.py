"""The best linear map of a rank from what is read to what is written.

Where both are the same, that is the projection on the principal components;
otherwise it is the reduced-rank regression (Izenman 1975): with W the least
squares map, the components are those of x W.

Shapes: D_in width of the sites read, D of those written, R rank.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from jaxsae import mesh as meshes
from jaxsae import pod
from jaxsae.evals.controls.text import Activations
from jaxsae.lm import Lm, Taps
from jaxsae.sae import Sae

_WIDEST = 8192  # of sites whose second moments are made
_RIDGE = 1e-6  # of the mean variance of x, added where variances are inverted


def has_moments(lm: Lm, taps: Taps) -> bool:
  """Returns whether sites are narrow enough for their second moments."""
  return max(taps.d_in(lm.config), taps.d(lm.config)) <= _WIDEST


@dataclasses.dataclass(frozen=True)
class SecondMoments:
  """Sums over text of x, y and their products, around some points c and e.

  Attributes:
    tokens: n.
    x: Σ (x - c), [D_in].
    y: Σ (y - e), [D].
    xx: Σ (x - c)(x - c)ᵀ, [D_in, D_in].
    xy: Σ (x - c)(y - e)ᵀ, [D_in, D].
  """

  tokens: np.ndarray
  x: np.ndarray
  y: np.ndarray
  xx: np.ndarray
  xy: np.ndarray

  @classmethod
  def of(
    cls, text: Activations, taps: Taps, points: tuple[jax.Array, jax.Array]
  ) -> "SecondMoments":
    """Sums over one step of text, around points c [D_in] and e [D]."""
    sums = _sums(text.mask, text.read(taps), text.written(taps), *points)
    found = pod.to_host(meshes.wait_for(sums))
    return cls(*(np.asarray(x, np.float64) for x in found))

  def __add__(self, other: "SecondMoments") -> "SecondMoments":
    """Returns the sums over both texts."""
    pairs = zip(vars(self).values(), vars(other).values(), strict=True)
    return SecondMoments(*(a + b for a, b in pairs))

  def centred(self) -> tuple[np.ndarray, np.ndarray]:
    """Returns the covariances times n, of x and of x with y."""
    xx = self.xx - np.outer(self.x, self.x) / self.tokens
    return xx, self.xy - np.outer(self.x, self.y) / self.tokens


@jax.jit
def _sums(mask, reads, writes, c, e):
  join = lambda sites: jnp.concatenate(sites, -1).astype(jnp.float32)
  text = mask[..., None]
  x = jnp.where(text, join(reads) - c[None, None, :], 0)
  y = jnp.where(text, join(writes) - e[None, None, :], 0)
  with jax.default_matmul_precision("highest"):
    xx = jnp.einsum("bti,btj->ij", x, x)
    xy = jnp.einsum("bti,btj->ij", x, y)
  over_text = lambda x: jnp.sum(x, axis=(0, 1))
  return jnp.sum(mask), over_text(x), over_text(y), xx, xy


class LinearMaps:
  """Makes the best linear maps of any rank between some sites.

  Args:
    moments: the sums over text.
    points: c [D_in] and e [D], around which they are.
    is_one_site: whether y is x.
  """

  def __init__(
    self,
    moments: SecondMoments,
    points: tuple[np.ndarray, np.ndarray],
    is_one_site: bool,
  ):
    xx, xy = moments.centred()
    d_in = len(xx)
    if is_one_site:
      self._map, fitted = np.eye(d_in), xx
    else:
      ridge = _RIDGE * np.trace(xx) / d_in * np.eye(d_in)
      self._map = np.linalg.solve(xx + ridge, xy)
      fitted = xy.T @ self._map
    self._axes = np.linalg.eigh(fitted)[1][:, ::-1]  # largest first
    self._mean_x = points[0] + moments.x / moments.tokens
    self._mean_y = points[1] + moments.y / moments.tokens

  def of_rank(self, rank: int, pairs: int) -> Sae:
    """Returns the map as an autoencoder, whose L0 is its rank.

    Each axis is two latents, one for either sign, of which one is active.

    Args:
      rank: the rank; it is the width of what is written if that is less.
      pairs: half of the autoencoder's width; latents that are left over are 0.
    """
    right = self._axes[:, :rank].T
    left = self._map @ right.T
    fill = pairs - len(right)
    left, right = (
      np.pad(left, ((0, 0), (0, fill))),
      np.pad(right, ((0, fill), (0, 0))),
    )
    shift = self._mean_x @ left
    both = lambda x, axis=0: jnp.asarray(
      np.concatenate([x, -x], axis), jnp.float32
    )
    return Sae(
      w_enc=both(left, 1),
      b_enc=both(-shift),
      w_dec=both(right),
      b_dec=jnp.asarray(self._mean_y, jnp.float32),
      threshold=jnp.zeros(2 * pairs),
    )
