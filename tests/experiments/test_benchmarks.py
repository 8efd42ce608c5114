"""Benchmarks run at toy size, do the same on both sides, and make a page."""

import dataclasses
import warnings

import jax
import numpy as np
import pytest

from experiments.benchmarks import __main__ as page
from experiments.benchmarks import checkpoints, scaling, turns
from experiments.benchmarks.ours import Training
from experiments.benchmarks.settings import Settings
from jaxsae.lm import Site
from tests.libraries import need

need("torch")
need("sae_lens")
with warnings.catch_warnings():
  warnings.simplefilter("ignore")  # SAELens imports deprecated names
  from experiments.benchmarks import end_to_end, saelens, sweep

pytestmark = [
  pytest.mark.slow,
  pytest.mark.filterwarnings("ignore"),  # SAELens' own
]


@pytest.fixture
def settings(lm_path, texts, tmp_path):
  return Settings(
    sites=(Site("resid", 1), Site("mlp", 0)),
    targets=(4.0, 8.0),
    width=64,
    update_tokens=64,
    lm=str(lm_path),
    source=str(texts),
    cache=str(tmp_path / "cache"),
    context=16,
    rows=8,
    microbatches=4,
  )


@pytest.fixture
def single(settings):
  return dataclasses.replace(
    settings, sites=settings.sites[:1], targets=settings.targets[:1]
  )


def test_both_sides_start_with_the_same_autoencoders(settings, tmp_path):
  torch = need("torch")

  ours = Training(settings)
  theirs = saelens.SweepTraining(ours, tmp_path / "hf")
  assert list(theirs.saes) == ["resid.1/4", "resid.1/8", "mlp.0/4", "mlp.0/8"]
  x = np.random.default_rng(0).normal(size=(50, 32)).astype(np.float32)
  for member, sae in zip(ours.members, theirs.saes.values(), strict=True):
    expected = np.asarray(member.sae(x))
    found = sae(torch.tensor(x)).detach().numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert sae.cfg.target_l0 == member.target


def test_a_turn_is_a_bucket_for_every_autoencoder(settings, tmp_path):
  ours = Training(settings)
  theirs = saelens.SweepTraining(ours, tmp_path / "hf")
  before = {
    name: sae.W_enc.detach().clone() for name, sae in theirs.saes.items()
  }
  ours.turn()
  theirs.turn()
  trainers = theirs._trainer.trainers.values()
  assert {t.n_training_samples for t in trainers} == {settings.bucket_tokens}
  assert {t.n_training_steps for t in trainers} == {settings.updates}
  assert int(ours._state.step) == 1
  assert len(ours.l0) == len(theirs.l0) == 4
  for name, sae in theirs.saes.items():
    assert (sae.W_enc != before[name]).any(), name


def test_saelens_scales_activations_as_we_do(single, tmp_path):
  ours = Training(single)
  theirs = saelens.SingleTraining(ours, tmp_path / "hf")
  x = theirs._trainer.activation_scaler(next(theirs._data))
  np.testing.assert_allclose(x.square().sum(-1).mean(), 1, rtol=0.1)


def test_different_weights_of_the_language_model_are_detected(single, tmp_path):
  ours = Training(single)
  theirs = saelens.SingleTraining(ours, tmp_path / "hf")
  model = theirs._trainer.data_provider.model
  saelens.check(ours, model)
  worse = jax.tree.map(lambda w: w * 1.001, ours.lm.params)
  ours.lm = ours.lm.replace(params=worse)
  with pytest.raises(AssertionError, match=r"resid\.1 is .* off"):
    saelens.check(ours, model)


def test_a_site_that_saelens_cannot_read_is_refused():
  assert saelens.hook(Site("resid", 2)) == "model.layers.2"
  with pytest.raises(AssertionError, match=r"attn\.2"):
    saelens.hook(Site("attn", 2))


def test_both_sides_reach_the_target_l0(single, tmp_path):
  quick = dataclasses.replace(
    single, sparsity_coefficient=1.0, bandwidth=0.05, sparsity_warmup=8
  )
  ours = Training(quick)
  theirs = saelens.SingleTraining(ours, tmp_path / "hf")
  for _ in range(20):
    ours.turn()
    theirs.turn()
  np.testing.assert_allclose([ours.l0, theirs.l0], 4, atol=2)


# Figures.


def test_functions_take_turns():
  calls = []
  times = turns.take([lambda: calls.append("a"), lambda: calls.append("b")], 3)
  assert calls == list("ab" * 4)  # the first of each is a warm-up
  assert [len(t) for t in times] == [3, 3]
  assert turns.ratio([2.0, 9.0, 8.0], [1.0, 3.0, 2.0]) == 3


def test_the_exponent_is_that_of_a_power_law():
  x = np.array([4.0, 8, 64])
  np.testing.assert_allclose(scaling.exponent(x, 3 * x**0.9), 0.9)


def test_the_line_is_slope_and_intercept():
  np.testing.assert_allclose(sweep.line([3, 6, 9], [17, 32, 47]), (5, 2))


def rows(text):
  """Returns the cells of the tables in a text, without the heads."""
  lines = [x for x in text.splitlines() if x.startswith("|")]
  cells = [[c.strip() for c in x.strip("|").split("|")] for x in lines]
  return [row for row in cells if row[0].isdigit()]


def test_end_to_end_prints_a_line_per_shape(single, capsys):
  end_to_end.main(single, [(64, 64), (128, 32)], rounds=1)
  found = np.array(rows(capsys.readouterr().out), float)
  assert found[:, :2].tolist() == [[64, 64], [128, 32]]
  assert np.isfinite(found).all() and (found > 0).all()


def test_a_sweep_prints_a_line_per_size_and_the_time_per_autoencoder(
  settings, capsys
):
  sweep.main(settings, rounds=1)
  out = capsys.readouterr().out
  found = np.array(rows(out), float)
  assert found[:, 0].tolist() == [2, 4]
  assert np.isfinite(found).all() and (found > 0).all()
  assert out.count("for each autoencoder") == 2


def test_scaling_prints_both_tables(capsys):
  scaling.main([128, 256], [1, 2], 128, rounds=1)
  out = capsys.readouterr().out
  assert [row[0] for row in rows(out)] == ["128", "256", "1", "2"]
  assert out.count("Time grows") == 2


# The page.


@pytest.fixture
def write(tmp_path, monkeypatch):
  """write(name, source): writes a module that the page can run."""
  monkeypatch.syspath_prepend(tmp_path)
  monkeypatch.setenv("PYTHONPATH", str(tmp_path))
  return lambda name, source: (tmp_path / f"{name}.py").write_text(source)


def test_the_page_has_each_benchmarks_docstring_and_output(write, tmp_path):
  write("first", '"""One.\n\n  command\n\nWhy.\n"""\nprint("| 1 |")\n')
  write("second", '"""Two."""\nprint("| 2 |")\n')
  out = tmp_path / "docs" / "page.md"
  page.write(["first", "second"], out, {})
  text = out.read_text()
  assert "## One.\n\n    command\n\nWhy.\n\n| 1 |\n" in text
  assert text.index("| 1 |") < text.index("## Two.") < text.index("| 2 |")
  assert f"jax {jax.__version__}" in text
  write("second", '"""Two."""\nprint("| other |")\n')
  page.write(["second"], out, page.read_sections(out))
  again = out.read_text()
  assert (
    again.index("| 1 |") < again.index("## Two.") < again.index("| other |")
  )
  assert "| 2 |" not in again and again.count("Took") == text.count("Took") == 2


def test_a_benchmark_that_fails_leaves_the_page_alone(write, tmp_path):
  write("broken", '"""Broken."""\nprint("| 1 |")\nraise SystemExit(3)\n')
  out = tmp_path / "page.md"
  out.write_text("as it was")
  with pytest.raises(SystemExit, match="broken failed; nothing was written"):
    page.write(["broken"], out, {})
  assert out.read_text() == "as it was"


def test_every_benchmark_of_the_page_exists():
  folder = page.ROOT / "experiments" / "benchmarks"
  assert all((folder / f"{name}.py").exists() for name in page.NAMES)


def test_the_overhead_of_a_checkpoint_is_printed(settings, tmp_path, capsys):
  checkpoints.overhead(settings, tmp_path, rounds=1)
  ((step, cost, share),) = rows(capsys.readouterr().out)
  expected = float(cost) / float(step)  # of 100 steps, in %
  assert float(share.rstrip("%")) == pytest.approx(expected, rel=0.3, abs=1)
  assert any((tmp_path / "checkpoints").iterdir())


def test_a_second_start_finds_what_the_first_compiled(
  settings, tmp_path, monkeypatch, capsys, no_compile_cache
):
  """Runs in this process, unlike the benchmark."""
  monkeypatch.setattr(checkpoints, "SETTINGS", settings)
  for name, word in (("cold", "compile"), ("again", "load")):
    checkpoints.one_step(str(tmp_path / name))
    out = capsys.readouterr().out
    assert checkpoints.LINE.search(out) and f"s to {word}" in out
