"""How much of a concept's direction other latents carry in place of its own.

The definitions are those of SAEBench's `absorption`
(sae_bench/evals/absorption/feature_absorption_calculator.py and
k_sparse_probing.py of sae-bench 0.6.0, after Chanin et al., arXiv 2409.14507):

- A probe of the concept has the unit direction p. An example x projects on it
  by x · p; latent j contributes a_j cos(w_j, p), with a_j its activation and
  w_j its row of the decoder.
- The concept's *main latents* are the k that rank first, with k counted from 1
  for as long as one more adds over 0.03 to the F1 of their probe.
- *Absorbers* are other latents with cos ≥ 0.1 and a positive contribution; the
  three largest count. If they contribute less than 0.4 of x · p, or if the main
  latents contribute all of it, the *absorption fraction* is 0. If the main
  latents contribute nothing, it is 1. Otherwise it is A / (A + M), with M the
  main latents' contribution and A the absorbers', at most x · p - M.
- An example is *fully absorbed* if no main latent is active and the latent that
  contributes most has cos ≥ 0.025 and at least 0.4 of x · p.

Shapes: N examples, F latents.
"""

from collections.abc import Sequence

import numpy as np
from scipy import sparse

SPLIT_GAIN = 0.03  # of F1, by which a further main latent must add
MOST_MAIN = 10  # main latents
_FULL_COSINE = 0.025
_COSINE = 0.1
_SHARE = 0.4  # of the projection
_ABSORBERS = 3
_ACTIVE = 1e-8


def main_count(f1: Sequence[float]) -> int:
  """Returns the number of main latents, given the F1 of probes of 1, 2, …"""
  best, count = -np.inf, 0
  for value in f1:
    if value <= best + SPLIT_GAIN:
      break
    best, count = value, count + 1
  return count


def absorption(
  latents: sparse.csr_matrix,
  projections: np.ndarray,
  cosines: np.ndarray,
  main: Sequence[int],
) -> tuple[np.ndarray, np.ndarray]:
  """Measures absorption on examples that the concept's probe says yes to.

  Args:
    latents: [N, F].
    projections: [N], x · p.
    cosines: [F], of each latent's direction and p.
    main: numbers of the main latents.

  Returns:
    The absorption fraction of each example, [N], and whether it is fully
    absorbed, [N].
  """
  pairs = [
    _of_example(latents.getrow(i), float(projections[i]), cosines, main)
    for i in range(len(projections))
  ]
  fractions, full = zip(*pairs, strict=True) if pairs else ((), ())
  return np.array(fractions, float), np.array(full, bool)


def _of_example(
  row: sparse.csr_matrix,
  projection: float,
  cosines: np.ndarray,
  main: Sequence[int],
) -> tuple[float, bool]:
  """Returns the fraction, and whether the example is fully absorbed."""
  active = row.indices[row.data > _ACTIVE]
  given = row.data[row.data > _ACTIVE] * cosines[active]
  is_main = np.isin(active, main)
  own = float(given[is_main].sum())
  able = ~is_main & (cosines[active] >= _COSINE) & (given > 0)
  others = float(np.sort(given[able])[-_ABSORBERS:].sum())
  fraction = _fraction(projection, own, others)
  if is_main.any() or not len(active) or projection <= 0:
    return fraction, False
  top = np.argmax(given)
  is_aligned = cosines[active[top]] >= _FULL_COSINE
  return fraction, bool(is_aligned and given[top] >= _SHARE * projection)


def _fraction(projection: float, own: float, others: float) -> float:
  """Returns the absorption fraction of one example."""
  is_small = projection <= 0 or others < _SHARE * projection
  if is_small or own >= projection:
    return 0.0
  if own <= 0:
    return 1.0
  absorbed = min(others, projection - own)
  return absorbed / (absorbed + own)
