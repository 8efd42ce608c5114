"""Known features and figures of recovery agree with SAELens."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.comparison import features as known
from experiments.comparison import recovery
from jaxsae.sae import Sae
from tests.libraries import need

torch = need("torch")
lens = need("sae_lens.synthetic")
evals = need("sae_lens.synthetic.evals")

SETTINGS = known.Settings(features=64, width=16, roots=2, depth=2, rank=4)
N = 20_000


@pytest.fixture(scope="module")
def features():
  return known.make(jax.random.key(0), SETTINGS)


@pytest.fixture(scope="module")
def drawn(features):
  return known.draw(features, jax.random.key(1), N)


def test_firing_agrees_with_saelens(features, drawn):
  """SAELens' generator, given our features, makes the same magnitudes."""
  theirs = generator(features).sample(N).numpy()
  ours = np.asarray(drawn[1])
  fired = np.stack([np.mean(ours > 0, axis=0), np.mean(theirs > 0, axis=0)])
  p = np.mean(fired, axis=0)
  off = (fired[0] - fired[1]) / np.sqrt(2 * p * (1 - p) / N)
  assert np.max(np.abs(off)) < 4.5 and np.std(off) < 1.4
  together = np.corrcoef((ours > 0).T) - np.corrcoef((theirs > 0).T)
  assert np.max(np.abs(together)) < 0.05
  sums = np.mean(ours, axis=0) / np.mean(theirs, axis=0)
  np.testing.assert_allclose(np.average(sums, weights=p), 1, atol=0.02)


def test_attempts_are_as_frequent_as_saelens_makes_them(features):
  probability = torch.tensor(np.asarray(features.probability))
  factors = trees().compute_probability_correction_factors(probability)
  expected = (probability * factors).clamp(max=1.0)
  found = known.compensate(SETTINGS, features.probability)
  np.testing.assert_allclose(found, expected, rtol=1e-5)


def trees():
  return lens.generate_hierarchy(
    SETTINGS.features,
    lens.HierarchyConfig(
      total_root_nodes=SETTINGS.roots,
      branching_factor=SETTINGS.branching,
      max_depth=SETTINGS.depth,
      mutually_exclusive_portion=1.0,
      scale_children_by_parent=True,
    ),
  )


def generator(features):
  tensor = lambda x: torch.tensor(np.asarray(x))
  causes = tensor(features.causes)
  torch.manual_seed(0)
  return lens.ActivationGenerator(
    num_features=SETTINGS.features,
    firing_probabilities=tensor(
      known.compensate(SETTINGS, features.probability)
    ),
    std_firing_magnitudes=tensor(features.std),
    mean_firing_magnitudes=tensor(features.mean),
    modify_activations=trees().modifier,
    correlation_matrix=lens.LowRankCorrelationMatrix(
      causes, 1 - causes.square().sum(dim=1)
    ),
  )


@pytest.mark.parametrize("width", [32, 64, 100])
def test_the_figures_of_recovery_agree_with_saelens(features, drawn, width):
  """The dictionary is noisy, with features missing and others twice."""
  rng = np.random.default_rng(width)
  chosen = np.asarray(features.directions)[rng.integers(0, 64, width)]
  noisy = chosen + 0.1 * rng.normal(size=chosen.shape)
  sae = Sae(
    w_enc=jnp.asarray(noisy.T, jnp.float32),
    b_enc=jnp.asarray(0.5 * rng.normal(size=width), jnp.float32),
    w_dec=jnp.asarray(noisy, jnp.float32),
    b_dec=features.bias,
    threshold=jnp.full(width, 2.0).at[0].set(1e9),
  )
  ours = recovery.measure(sae, features.directions, batches(drawn))
  theirs = evaluate(sae, features, drawn)
  assert ours.mcc == pytest.approx(theirs["mcc"], rel=1e-5)
  assert ours.uniqueness == theirs["uniqueness"] < 1
  for name in ("precision", "recall", "f1"):
    assert getattr(ours, name) == pytest.approx(theirs[name], rel=1e-5)
  assert ours.l0 == pytest.approx(theirs["l0"], rel=1e-6)
  assert ours.dead * width == theirs["dead"] >= 1
  assert ours.r2 == pytest.approx(theirs["r2"], rel=1e-4, abs=1e-4)
  assert ours.shrinkage == pytest.approx(theirs["shrinkage"], rel=1e-5)


def batches(drawn):
  return zip(*(jnp.split(part, 4) for part in drawn), strict=True)


def evaluate(sae, features, drawn):
  """Returns figures by SAELens' calculators, on all arrays at once."""
  tensor = lambda x: torch.tensor(np.asarray(x))
  x, magnitudes = map(tensor, drawn)
  latents = sae.encode(drawn[0])
  y = tensor(sae.decode(latents))
  rows, others = tensor(sae.w_dec), tensor(features.directions)
  latents = tensor(latents)
  fired = evals.compute_classification_metrics(
    latents, magnitudes, rows, others
  )
  return {
    "mcc": evals.mean_correlation_coefficient(rows, others),
    "uniqueness": evals.feature_uniqueness(rows, others),
    "precision": fired.precision,
    "recall": fired.recall,
    "f1": fired.f1_score,
    "l0": over_batches(evals.L0Calculator(), latents),
    "dead": over_batches(evals.DeadLatentsCalculator(len(rows)), latents),
    "r2": over_batches(evals.ExplainedVarianceCalculator(), y, x),
    "shrinkage": over_batches(evals.ShrinkageCalculator(), y, x),
  }


def over_batches(calculator, *arrays):
  calculator.add_batch(*arrays)
  return calculator.compute()
