"""The comparison on known features runs at toy size and tunes by its rule."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.comparison import features as known
from experiments.comparison import tuning
from experiments.comparison.recovery import Recovery
from jaxsae.train import arrays
from tests.libraries import need

pytestmark = pytest.mark.slow

torch = need("torch")
need("sae_lens")  # so that its warnings are not errors
trainers = need("experiments.comparison.trainers")
synthetic = need("experiments.comparison.synthetic")

SETTINGS = known.Settings(features=48, width=24, roots=2, depth=1, rank=2)
TOY = synthetic.Comparison(
  settings=SETTINGS,
  width=40,
  updates=20,
  batch=64,
  targets=(3, 5),
  seeds=(1, 2),
  rates=(3e-3,),
  lambdas=(0.01, 0.03),
  decays=(0.99,),
  held_out=2,
)
SIDES = list(synthetic.SIDES.values())


@pytest.fixture(scope="module")
def features():
  return known.make(jax.random.key(42), SETTINGS)


@pytest.fixture(scope="module")
def trial(features):
  """Makes a trial that is long enough to learn something."""
  longer = dataclasses.replace(TOY, updates=300)
  x = synthetic.samples(longer, features, 1)
  return trainers.Trial(x, 40, (3.0, 5.0), 1e-2, 0.03, decay=0.99, seed=1)


def test_the_page_has_every_side_target_and_grid_point(monkeypatch, tmp_path):
  out = tmp_path / "page.md"
  monkeypatch.setattr(synthetic, "Comparison", lambda: TOY)
  monkeypatch.setattr("sys.argv", ["synthetic", f"--out={out}"])
  synthetic.main()
  lines = out.read_text(encoding="utf-8").splitlines()
  rows = [line.split(" | ") for line in lines if line.startswith("| ")]
  heads = [i for i, row in enumerate(rows) if "side" in "".join(row[:2])]
  results, level, grid = (
    rows[a + 1 : b] for a, b in zip(heads, [*heads[1:], None], strict=True)
  )
  assert [row[:2] for row in results] == [
    [f"| {target}", name] for target in (3, 5) for name in synthetic.SIDES
  ]
  assert all(len(row) == 2 + len(synthetic.COLUMNS) for row in results)
  assert all(re.search(r"\d ± \d", cell) for r in results for cell in r[2:])
  assert len(level) in (0, 3 * len(SIDES))
  assert len(grid) == 2 * len(SIDES)
  chosen = [row[0] for row in grid if "chosen" in row[-1]]
  assert chosen == [f"| {name}" for name in synthetic.SIDES]


@pytest.mark.parametrize("train", SIDES)
def test_training_improves_recovery_and_approaches_the_targets(
  features, trial, train
):
  few, many = synthetic.evaluate(TOY, features, train(trial))
  start = dataclasses.replace(trial, x=trial.x[:20])
  before, _ = synthetic.evaluate(TOY, features, train(start))
  assert few.l0 < many.l0
  assert abs(few.l0 - 3) < abs(before.l0 - 3)
  assert few.mcc > before.mcc and few.fvu < before.fvu


@pytest.mark.parametrize("train", SIDES)
def test_a_seed_trains_the_same_autoencoder_again(trial, train):
  short = dataclasses.replace(trial, x=trial.x[:5])
  first, again = train(short)[0], train(short)[0]
  jax.tree.map(np.testing.assert_array_equal, first, again)
  (other, _) = train(dataclasses.replace(short, seed=2))
  assert not np.allclose(first.w_enc, other.w_enc, atol=1e-2)


def test_both_sides_see_each_sample_once_and_in_order(monkeypatch, trial):
  short = dataclasses.replace(trial, x=trial.x[:20], targets=(3.0,))
  seen, update = [], arrays.update

  def spy(*arguments):
    seen.append(arguments[2])
    return update(*arguments)

  monkeypatch.setattr(arrays, "update", spy)
  trainers.train_ours(short)
  np.testing.assert_array_equal(np.stack(seen), short.x)

  theirs, train = [], trainers.SAETrainer._train_step

  def other_spy(self, sae, sae_in):
    theirs.append(self.activation_scaler.unscale(sae_in).numpy())
    return train(self, sae, sae_in)

  monkeypatch.setattr(trainers.SAETrainer, "_train_step", other_spy)
  trainers.train_saelens(short)
  np.testing.assert_allclose(np.stack(theirs), short.x, rtol=1e-4, atol=1e-5)


def test_saelens_in_our_form_computes_the_same(trial):
  sae = trainers.fit(dataclasses.replace(trial, x=trial.x[:20]), 3.0)
  x = trial.x[-1]
  with torch.no_grad():
    latents = sae.encode(torch.from_numpy(x))
    y = sae.decode(latents).numpy()
  ours = trainers.from_saelens(sae)
  np.testing.assert_allclose(ours.encode(x), latents, rtol=1e-3, atol=1e-3)
  np.testing.assert_allclose(ours(x), y, rtol=1e-3, atol=1e-3)
  assert np.any(latents.numpy())


def test_held_out_samples_and_those_of_seeds_are_all_different(features):
  def rows(batches):
    active = [x[np.any(m > 0, axis=1)] for x, m in map(numpy, batches)]
    return {row.tobytes() for row in np.concatenate(active)}

  numpy = lambda batch: tuple(map(np.asarray, batch))
  streams = [rows(synthetic.draws(TOY, features, s, 4)) for s in range(3)]
  held = rows(synthetic.held_out(TOY, features))
  assert held <= streams[0] and len(held) > 50
  assert not (streams[0] & streams[1] or streams[1] & streams[2])
  np.testing.assert_array_equal(
    synthetic.samples(TOY, features, 0)[0],
    next(synthetic.draws(TOY, features, 1, 1))[0],
  )


@pytest.mark.parametrize(
  "l0s_and_mccs, chosen",
  [
    ([(10.0, 0.5), (10.4, 0.6), (13.0, 0.9)], 1),  # the last is not close
    ([(10.4, 0.5), (9.6, 0.4)], 0),
    ([(13.0, 0.9), (8.0, 0.2), (12.5, 0.8)], 1),  # none is close: the nearest
  ],
)
def test_choose_takes_the_best_point_near_the_target(l0s_and_mccs, chosen):
  blank = Recovery(*np.zeros(len(dataclasses.fields(Recovery))))
  points = tuple(
    tuning.Point(1e-3, 0.1, 0.99, dataclasses.replace(blank, l0=l0, mcc=mcc))
    for l0, mcc in l0s_and_mccs
  )
  picked = tuning.choose(points, 10.0, 0.05, lambda found: -found.mcc)
  assert picked is points[chosen]


def test_features_can_be_made_from_the_default_settings():
  comparison = synthetic.Comparison()
  assert comparison.tuning_seed not in comparison.seeds
  make = lambda key: known.make(key, comparison.settings)
  shapes = jax.eval_shape(make, jax.random.key(0))
  assert shapes.directions.shape == (1024, 128)
  assert shapes.directions.dtype == jnp.float32
