"""Planted latents are found, and selection and probe agree with NumPy."""

import numpy as np
import pytest
from scipy import sparse
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from jaxsae.evals.downstream import logistic
from jaxsae.evals.downstream.estimate import resample, score
from jaxsae.evals.downstream.labelled import LabelledTexts, split
from jaxsae.evals.downstream.sparse_probe import most_different, probe_of_few

N, F = 600, 40


def drawn(labels, seed=0, **fields):
  texts = LabelledTexts("t", [str(i) for i in range(N)], labels, **fields)
  return split(texts, "b", train=4000, test=1000, seed=seed)


@pytest.fixture(scope="module")
def labels():
  return np.random.default_rng(0).choice(["a", "b"], N)


@pytest.fixture(scope="module")
def planted(labels):
  """Sparse noise, where latent 7 fires on the texts of the class alone."""
  rng = np.random.default_rng(1)
  x = rng.exponential(size=(N, F)) * (rng.random((N, F)) < 0.2)
  x[:, 7] = (labels == "b") * (1 + rng.random(N))
  return sparse.csr_matrix(x)


def test_the_latent_that_is_the_class_is_chosen_and_is_never_wrong(
  planted, labels
):
  is_positive = labels == "b"
  chosen, by_k = probe_of_few(planted, is_positive, drawn(labels), (1, 5))
  assert chosen[0] == 7
  for scored in by_k.values():
    found = score([scored], resample(np.arange(N)))
    assert found.accuracy.value == found.auc.value == 1
    assert found.accuracy.interval == (1, 1)


def test_shuffled_labels_are_at_chance(planted, labels):
  shuffled = np.random.default_rng(2).permutation(labels)
  is_positive = shuffled == "b"
  every = [
    probe_of_few(planted, is_positive, drawn(shuffled, seed), (5,))[1][5]
    for seed in range(8)
  ]
  found = score(every, resample(np.arange(N)))
  low, high = found.accuracy.interval
  assert low < 0.5 < high
  assert 0.02 < high - low < 0.25
  assert found.auc.value == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("make", [np.asarray, sparse.csr_matrix])
def test_selection_and_probe_agree_with_numpy_and_scikit_learn(make):
  rng = np.random.default_rng(3)
  y = rng.random(N) < 0.5
  x = rng.gamma(1, size=(N, F)) + 0.5 * y[:, None] * rng.normal(size=F)
  parts = drawn(np.where(y, "b", "a"))
  train, test = parts.train, parts.test
  means = [x[train][y[train] == side].mean(axis=0) for side in (True, False)]
  order = np.argsort(-np.abs(means[0] - means[1]))[:5]
  few = (x - x[train].mean(0)) / x[train].std(0)
  model = LogisticRegression(max_iter=1000)
  model.fit(few[train][:, order], y[train])

  chosen, by_k = probe_of_few(make(x), y, parts, (5,))
  assert chosen.tolist() == order.tolist()
  expected = model.decision_function(few[test][:, order])
  np.testing.assert_allclose(by_k[5].scores, expected, atol=1e-6)
  found = score([by_k[5]], resample(np.arange(N)))
  right = model.predict(few[test][:, order]) == y[test]
  assert found.accuracy.value == pytest.approx(right.mean())
  assert found.auc.value == pytest.approx(roc_auc_score(y[test], expected))
  assert 0.6 < found.auc.value < 1  # the comparison is of something


def test_of_equal_differences_the_lower_number_is_chosen():
  x = np.array([[1.0, 0, 0, 2], [0, 1, 1, 0]])
  assert most_different(x, np.array([True, False]), 3).tolist() == [3, 0, 1]


def test_the_scale_of_latents_does_not_matter(planted, labels):
  rng, y = np.random.default_rng(4), labels == "b"
  noisy = planted.toarray()[:, 8:] + y[:, None] * rng.random(F - 8)
  parts = drawn(labels)
  _, ours = probe_of_few(noisy, y, parts, (3,))
  _, small = probe_of_few(noisy / 1000, y, parts, (3,))
  np.testing.assert_allclose(ours[3].scores, small[3].scores, atol=1e-3)


def test_a_sparse_probe_minimises_its_objective():
  rng = np.random.default_rng(5)
  x = rng.exponential(size=(300, 6)) * (rng.random((300, 6)) < 0.4)
  y = rng.random(300) < 1 / (1 + np.exp(3 - 3 * x[:, 2]))
  weights = logistic.fit_sparse(sparse.csr_matrix(x), y, 0.05)

  def objective(weights):
    ratio = np.sum(~y) / np.sum(y)
    bias = np.linspace(-5, 5, 2001)[:, None]
    margin = np.where(y, 1, -1) * (x @ weights + bias)
    loss = (np.logaddexp(0, -margin) * np.where(y, ratio, 1)).mean(axis=1)
    return loss.min() + 0.05 * np.abs(weights).sum()

  assert np.argmax(weights) == 2
  least = objective(weights)
  for _ in range(50):
    assert objective(weights + rng.normal(0, 0.05, 6)) > least - 1e-3
