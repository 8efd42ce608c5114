"""Logistic regression by scikit-learn, the only module that imports it.

Probes are L2-regularised with C = 1, as SAEBench's of k latents are
(sae_bench/evals/sparse_probing/probe_training.py of sae-bench 0.6.0). Other
than there, each input is first divided by its standard deviation over the
training texts: otherwise the penalty is the stronger the smaller the numbers
of an autoencoder are, and figures of two autoencoders differ by their scales.

Shapes: N examples, I inputs.
"""

import types
import warnings
from typing import Any, NamedTuple

import numpy as np

from jaxsae.errors import UserError

_ITERATIONS = 1000


class Linear(NamedTuple):
  """A linear probe; its score is above 0 where it says yes."""

  weights: np.ndarray  # [I]
  bias: float

  def scores(self, x: np.ndarray) -> np.ndarray:
    """Returns the score of each row of x [N, I]."""
    return x @ self.weights + self.bias


def fit(
  x: np.ndarray, is_positive: np.ndarray, balanced: bool = False
) -> Linear:
  """Fits a probe to dense inputs.

  Args:
    x: [N, I].
    is_positive: bool [N].
    balanced: whether both classes weigh the same, however many each has.

  Returns:
    The probe of inputs as they are, in their own units.
  """
  mean, deviation = x.mean(axis=0), x.std(axis=0)
  scale = np.where(deviation > 0, deviation, 1)
  weight = "balanced" if balanced else None
  model = _linear_model().LogisticRegression(
    max_iter=_ITERATIONS, class_weight=weight
  )
  model.fit((x - mean) / scale, is_positive)
  weights = model.coef_[0] / scale
  return Linear(weights, float(model.intercept_[0] - mean @ weights))


def fit_sparse(x: Any, is_positive: np.ndarray, penalty: float) -> np.ndarray:
  """Returns the weights [I] of a probe with an L1 penalty on sparse inputs.

  It minimises the mean over examples of the cross-entropy, in which those of
  the class weigh as much more as they are fewer, plus `penalty` · Σ|weight|.

  Args:
    x: a sparse matrix of scipy, [N, I], as it is, without a common scale.
    is_positive: bool [N].
    penalty: the strength of the penalty.
  """
  ratio = np.sum(~is_positive) / np.sum(is_positive)
  model = _linear_model().LogisticRegression(
    l1_ratio=1.0,
    solver="liblinear",
    C=1 / (penalty * len(is_positive)),
    class_weight={False: 1.0, True: float(ratio)},
    intercept_scaling=10.0,  # which liblinear penalises, by the square
    random_state=0,
  )
  with warnings.catch_warnings():
    # The weights only rank latents; their last digits do not matter.
    warnings.simplefilter("ignore")
    model.fit(x, is_positive)
  return model.coef_[0]


def _linear_model() -> types.ModuleType:
  try:
    from sklearn import linear_model
  except ImportError as error:
    raise UserError(
      "Probes are fitted by scikit-learn, which is not installed; install it"
      " with pip install 'jaxsae[probe]'."
    ) from error
  return linear_model
