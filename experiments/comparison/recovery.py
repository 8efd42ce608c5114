"""Measures how well an autoencoder's latents recover the known features.

Definitions are SynthSAEBench's (arXiv 2602.14687), as SAELens computes them.
Directions and features are compared by |cos|; a latent's best feature is the
one with which it has the largest |cos|.

Shapes: G features, D site width, F latents, n samples.
"""

import dataclasses
from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize

from jaxsae.sae import Sae

Samples = Iterable[tuple[jax.Array, jax.Array]]  # x [n, D], magnitudes [n, G]


@dataclasses.dataclass(frozen=True)
class Recovery:
  """Figures of one autoencoder, pooled over all samples.

  Attributes:
    mcc: mean correlation coefficient: the mean |cos| of latents and features,
      paired one to one so that the mean is largest. Latents or features that
      are left without a partner do not count.
    uniqueness: number of features that are the best match of some latent,
      divided by F.
    precision: of the samples on which a latent is active, the share on which
      its best feature fires; 0 for a dead latent; mean over latents.
    recall: of the samples on which that feature fires, the share on which the
      latent is active; 0 if it never fires; mean over latents.
    f1: 2 precision · recall / (precision + recall) of each latent, or 0; mean
      over latents.
    l0: mean active latents of a sample.
    fvu: Σ‖x - x̂‖² / Σ‖x - mean‖².
    dead: share of latents that are active on no sample.
    shrinkage: mean ‖x̂‖ / ‖x‖ of samples; below 1 where x̂ is too short.
  """

  mcc: float
  uniqueness: float
  precision: float
  recall: float
  f1: float
  l0: float
  fvu: float
  dead: float
  shrinkage: float

  @property
  def r2(self) -> float:
    """R², the share of variance explained: 1 - FVU."""
    return 1 - self.fvu


def measure(sae: Sae, directions: jax.Array, samples: Samples) -> Recovery:
  """Figures of an autoencoder of raw activations against directions [G, D]."""
  similar = np.asarray(cosines(sae.w_dec, directions))
  best = np.argmax(similar, axis=1)
  seen = [jax.device_get(count(sae, best, *batch)) for batch in samples]
  # Float32 within a batch, float64 over all of them.
  total = {key: sum(np.float64(s[key]) for s in seen) for key in seen[0]}
  return Recovery(
    mcc=matched(similar),
    uniqueness=len(np.unique(best)) / sae.width,
    **firing(total),
    **fidelity(total),
  )


@jax.jit
def cosines(directions: jax.Array, others: jax.Array) -> jax.Array:
  """|cos| [F, G] of directions [F, D] with others [G, D]; 0 if one is zero."""
  return jnp.abs(unit_or_zero(directions) @ unit_or_zero(others).T)


def unit_or_zero(vectors: jax.Array) -> jax.Array:
  """Vectors [..., D] divided by their norms; zero vectors stay zero."""
  norms = jnp.linalg.norm(vectors, axis=-1, keepdims=True)
  return vectors / jnp.where(norms > 0, norms, 1)


def matched(similar: np.ndarray) -> float:
  """The mean of [F, G] over the one-to-one pairing that maximises it."""
  pairs = scipy.optimize.linear_sum_assignment(similar, maximize=True)
  return float(np.mean(similar[pairs]))


@jax.jit
def count(sae: Sae, best: jax.Array, x: jax.Array, magnitudes: jax.Array):
  """Sums over one batch of samples, from which all figures are computed."""
  latents = sae.encode(x)
  active, fires = latents > 0, magnitudes[:, best] > 0
  y = sae.decode(latents)
  norms = jnp.linalg.norm(x, axis=-1)
  return {
    "samples": len(x),
    "active": jnp.sum(active, axis=0),
    "fires": jnp.sum(fires, axis=0),
    "both": jnp.sum(active & fires, axis=0),
    "x": jnp.sum(x, axis=0),
    "x_squared": jnp.sum(jnp.square(x)),
    "error_squared": jnp.sum(jnp.square(x - y)),
    "length": jnp.sum(jnp.linalg.norm(y, axis=-1) / norms),
  }


def firing(total) -> dict[str, float]:
  """Figures of when latents are active, from sums over all samples."""
  precision = over(total["both"], total["active"])
  recall = over(total["both"], total["fires"])
  f1 = over(2 * precision * recall, precision + recall)
  return {
    "precision": float(np.mean(precision)),
    "recall": float(np.mean(recall)),
    "f1": float(np.mean(f1)),
    "l0": float(np.sum(total["active"]) / total["samples"]),
    "dead": float(np.mean(total["active"] == 0)),
  }


def fidelity(total) -> dict[str, float]:
  """Figures of the reconstruction, from sums over all samples."""
  squared_mean = np.sum(np.square(total["x"])) / total["samples"]
  variance = total["x_squared"] - squared_mean
  return {
    "fvu": float(total["error_squared"] / variance),
    "shrinkage": float(total["length"] / total["samples"]),
  }


def over(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
  """part / whole, and 0 where whole is 0."""
  return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)
