"""Probes of k latents: which are chosen, and what the probe then says.

The k latents with the largest |mean over texts of the class - mean over the
others| on the training texts are the inputs of a logistic regression. This is
`get_top_k_mean_diff_mask` of SAEBench's sparse probing
(sae_bench/evals/sparse_probing/probe_training.py of sae-bench 0.6.0) and
`get_sorted_indices` of sae-probes with `mean_diff_normalization="none"`
(sae_probes/run_sae_evals.py of sae-probes 0.4.2), whose default since then
divides each latent by its mean where it is active.

Shapes: N texts, I inputs, n test texts.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import sparse

from jaxsae.evals.downstream import logistic
from jaxsae.evals.downstream.estimate import Scored
from jaxsae.evals.downstream.labelled import Split


def most_different(x: Any, is_positive: np.ndarray, k: int) -> np.ndarray:
  """Returns the k inputs whose means differ most between two classes.

  Args:
    x: [N, I], dense or sparse.
    is_positive: bool [N].
    k: the number of inputs.

  Returns:
    int [k], the most different first; of equal ones, the lower number.
  """
  mean = lambda rows: np.asarray(rows.mean(axis=0), np.float64).ravel()
  difference = np.abs(mean(x[is_positive]) - mean(x[~is_positive]))
  return np.argsort(-difference, kind="stable")[:k]


def probe_of_few(
  x: Any, is_positive: np.ndarray, split: Split, ks: Sequence[int]
) -> tuple[np.ndarray, dict[int, Scored]]:
  """Trains probes of the most different inputs.

  Args:
    x: inputs of all texts, [N, I], dense or sparse.
    is_positive: bool [N].
    split: the texts to train and to test on.
    ks: numbers of inputs.

  Returns:
    The inputs in order, as many as the largest k, and the probe of each k.
  """
  train = is_positive[split.train]
  chosen = most_different(x[split.train], train, max(ks))
  few = x[:, chosen]
  few = few.toarray() if sparse.issparse(few) else few
  return chosen, {k: probe_of_all(few[:, :k], is_positive, split) for k in ks}


def probe_of_all(
  x: np.ndarray, is_positive: np.ndarray, split: Split
) -> Scored:
  """Trains a probe of all inputs [N, I], and returns what it says."""
  fitted = logistic.fit(x[split.train], is_positive[split.train])
  scores = fitted.scores(x[split.test])
  return Scored(split.test, is_positive[split.test], scores)
