"""A number that is not finite is named, never saved, and hurts nobody else."""

import json
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsae import mesh as meshes
from jaxsae import overrides
from jaxsae.errors import RunError
from jaxsae.lm import Lm, Site, load_lm, save_lm
from jaxsae.mesh import MeshConfig
from jaxsae.runs import open_run
from jaxsae.train import loop, metrics
from jaxsae.train.loop import train
from jaxsae.train.monitor.nonfinite import RECORD, NonFiniteCheck
from jaxsae.train.sources.text import open_batches
from jaxsae.train.state import StackState
from tests import pods
from tests.train import toys
from tests.train.monitor import samples
from tests.train.monitor.samples import BUCKET
from tests.train.toys import start

pytestmark = pytest.mark.slow

GOOD = 3e-3
NAMES = ("resid.1/64/l0_4_lr_0.003", "resid.1/64/l0_4_lr_1e+30")


@pytest.fixture
def pair(config, replace, monkeypatch):
  """`pair(rate)`: two autoencoders that differ in their learning rate.

  No setting takes a rate with which an update is sure to diverge.
  """
  monkeypatch.setattr(overrides, "check", lambda _: None)

  def of(rate, **more):
    return replace(
      config,
      mesh=MeshConfig(1, 1),
      sae__sites=(Site("resid", 1),),
      sae__target_l0=(4.0,),
      sae__learning_rates=(GOOD, rate),
      **more,
    )

  return of


def three_steps(config):
  """The state after three steps that nobody looks at, and all metrics."""
  mesh, source, state = start(config)
  step, seen = None, []
  for _ in range(3):
    bucket = source.take().batch
    step = step or toys.compile_step(
      config, mesh, state, source.weights, bucket
    )
    state, (of_stack,) = step(state, source.weights, bucket)
    seen.append(of_stack)
  return state, jax.tree.map(lambda *x: np.stack(x), *seen)


@pytest.mark.parametrize("mode", ["stop", "skip"])
def test_one_that_diverges_does_not_touch_its_neighbour(pair, mode):
  """Bit for bit, whether its updates are left out or not."""
  sound, of_sound = three_steps(pair(2e-3, not_finite=mode))
  state, seen = three_steps(pair(1e30, not_finite=mode))
  assert (of_sound.broken == -1).all() and not of_sound.skipped.any()
  assert (seen.broken[:, 0] == -1).all() and not seen.skipped[:, 0].any()
  assert (seen.broken[:, 1] >= 0).all()
  assert_equal_firsts(state.stacks[0], sound.stacks[0], axis=0)
  assert_equal_firsts(seen, of_sound, axis=1)
  kept = np.isfinite(state.stacks[0].sae.w_enc[1]).all()
  assert kept == (mode == "skip")


def assert_equal_firsts(a, b, axis):
  """Of the pair that lies along that axis; counts of updates have none."""
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    x, y = np.asarray(x), np.asarray(y)
    if x.ndim > axis:
      x, y = x.take(0, axis), y.take(0, axis)
    np.testing.assert_array_equal(x, y)


def test_nothing_is_saved_when_only_the_last_weights_broke(
  pair, replace, monkeypatch
):
  """One update a bucket: its loss and gradient are sound."""
  monkeypatch.setattr(sys, "argv", ["it.py", "--workdir=a b"])
  config = pair(1e30, bucket__update_tokens=512, checkpoint_every=1)
  with pytest.raises(RunError) as stop:
    train(config)
  says = str(stop.value)
  assert "step 1: loss, gradient or weights were not finite in update 0 of" in (
    says
  )
  assert NAMES[1] in says and NAMES[0] not in says
  assert says.endswith(
    f"{sys.executable} it.py '--workdir=a b' --not_finite=skip"
  )
  assert not list((pathlib.Path(config.workdir) / "checkpoints").iterdir())

  state = train(replace(config, not_finite="skip"))
  assert int(state.step) == 6
  assert all(np.isfinite(x).all() for x in jax.tree.leaves(state.stacks))
  for line in pods.metrics(config):
    assert [line[f"{name}/skipped"] for name in NAMES] == [0, 1]
    assert line[f"{NAMES[1]}/fvu"] is None


@pytest.mark.parametrize(
  ("sound", "weight", "broken"),
  [
    ([True, True, True], 1.0, -1),
    ([True, False, False], 1.0, 1),
    ([False, True, True], np.inf, 0),
    ([True, True, True], np.nan, 2),
  ],
)
def test_weights_that_break_count_as_broken_in_the_last_update(
  sound, weight, broken
):
  after = StackState({"w": jnp.array([[0.0, weight]])}, *[None] * 4)
  found = metrics._first_broken(jnp.array(sound)[:, None], after)
  assert found.tolist() == [broken]


@pytest.fixture
def poisoned(config, replace, tmp_path):
  """A run whose language model breaks on a word that bucket 4 is first with.

  Returns the run and the word.
  """
  config = replace(config, data__seed=2)  # there is such a word
  lm = load_lm(config.lm)
  corpus = loop.open_corpus(config, lm)
  batches = open_batches(config, meshes.make(config.mesh), corpus.train)
  read = [next(batches).tokens for _ in range(4)]
  words = np.setdiff1d(read[3], np.concatenate(read[:3]))
  table = lm.params["embedder"]["input_embedding"].at[words[0]].set(jnp.nan)
  params = lm.params | {"embedder": {"input_embedding": table}}
  save_lm(Lm(params, lm.config, lm.tokenizer), tmp_path / "poisoned")
  return replace(config, lm=str(tmp_path / "poisoned")), int(words[0])


def test_a_step_that_broke_is_named_and_the_run_goes_on_without_it(
  poisoned, replace, capsys
):
  run, word = poisoned
  with pytest.raises(RunError, match=r"step 4: .* and 1 more .*batch 3 of the"):
    train(run)
  folder = pathlib.Path(run.workdir)
  record = json.loads((folder / RECORD).read_text())
  assert record["step"] == 4 and record["updates"] == 8
  names = [name for stack in run.stacks for name in stack.names]
  assert list(record["autoencoders"]) == names
  assert_rows_hold(run, record["data"], word)
  # Step 4 was to be saved; the checkpoint before it is the newest.
  assert open_run(run.workdir).step == 2
  assert [line["step"] for line in pods.metrics(run)] == [1, 2, 3]

  state = train(replace(run, not_finite="skip"))
  assert int(state.step) == 6
  assert all(np.isfinite(x).all() for x in jax.tree.leaves(state.stacks))
  text = (folder / "metrics.jsonl").read_text()
  assert "NaN" not in text and "Infinity" not in text
  of_four = pods.metrics(run)[3]
  first = record["autoencoders"][names[0]]
  assert 0 < of_four[f"{names[0]}/skipped"] <= 8 - first
  out = capsys.readouterr().out
  for name in names:
    assert out.count(f"warning: {name}: update") == 1


def assert_rows_hold(run, data, word):
  corpus = loop.open_corpus(run, load_lm(run.lm))
  read = corpus.train.read(data["rows"])
  assert (read.tokens == word).any()
  found = {corpus.documents[i] for i in np.unique(read.documents) if i >= 0}
  assert set(data["documents"]) == found
  assert data["pass"] == 1 and data["next_batch"] == 3


def test_activations_that_are_never_finite_are_no_scale(
  config, replace, tmp_path
):
  lm = load_lm(config.lm)
  params = jax.tree.map(lambda x: x * jnp.nan, lm.params)
  save_lm(Lm(params, lm.config, lm.tokenizer), tmp_path / "broken")
  run = replace(config, lm=str(tmp_path / "broken"))
  with pytest.raises(
    RunError, match=r"activations of resid\.1 in .* nan in the"
  ):
    train(run)


def made(config, **of):
  """Metrics of every stack: name → (broken, skipped), else (-1, 0)."""
  part = lambda i: (
    lambda stack: np.array([of.get(name, (-1, 0))[i] for name in stack.names])
  )
  return samples.metrics(config, broken=part(0), skipped=part(1))


def test_what_is_left_out_is_counted_and_told_once(config, replace, tmp_path):
  config = replace(config, not_finite="skip")
  a, b = config.stacks[0].names
  check = NonFiniteCheck(samples.observed(config, tmp_path))
  (warning,) = check.observe(1, made(config, **{a: (3, 2)}), BUCKET)
  assert f"{a}: update 3 of step 1" in warning and "batch 9" in warning
  assert check.observe(2, made(config), BUCKET) == []
  (warning,) = check.observe(3, made(config, **{a: (0, 8), b: (1, 1)}), BUCKET)
  assert f"{b}: update 1 of step 3" in warning
  counts = check.counts()["skipped"]
  assert (counts.pop(a), counts.pop(b)) == (10, 1)
  assert set(counts.values()) == {0}
  assert set(check.counts()["skipped"].values()) == {0}
  assert not (tmp_path / RECORD).exists()


def test_a_stop_is_recorded(config, tmp_path):
  name = config.stacks[1].names[1]
  check = NonFiniteCheck(samples.observed(config, tmp_path))
  assert check.observe(1, made(config), BUCKET) == []
  with pytest.raises(RunError, match=r"update 5 of attn\.0/64/l0_8"):
    check.observe(2, made(config, **{name: (5, 1)}), BUCKET)
  assert json.loads((tmp_path / RECORD).read_text()) == {
    "step": 2,
    "updates": 8,
    "autoencoders": {name: 5},
    "data": {
      "next_batch": 9,
      "seed": 0,
      "pass": 2,
      "rows": [7, 5],
      "documents": ["two"],
    },
  }
