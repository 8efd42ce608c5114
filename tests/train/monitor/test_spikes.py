"""A loss that jumps is told once, with its data; one that climbs is not."""

import json

import numpy as np
import pytest

from jaxsae.train.loop import train
from jaxsae.train.monitor import spikes
from jaxsae.train.monitor.spikes import LEAST, WINDOW, LossSpikeCheck
from tests import pods
from tests.train.monitor import samples
from tests.train.monitor.samples import BUCKET

pytestmark = pytest.mark.slow

STEPS = 400


@pytest.fixture
def said(config):
  """`said(curve)`: the steps at which something was said, and what."""

  def of(curve, before=()):
    spikes = LossSpikeCheck(samples.observed(config, lines=before))
    found = ((n, spikes.observe(n, made(config, x), BUCKET)) for n, x in curve)
    return {n: warnings for n, warnings in found if warnings}

  return of


def made(config, losses):
  """Metrics of all stacks: the same loss for all, or the loss of each."""
  size = len(config.stacks[0].names)
  losses = np.broadcast_to(losses, (len(config.stacks), size))
  of = {
    str(stack): loss for stack, loss in zip(config.stacks, losses, strict=True)
  }
  return samples.metrics(config, loss=lambda stack: of[str(stack)])


def noisy(values, share=0.02):
  """(step, loss) with noise of that share, from step 1."""
  noise = np.random.default_rng(0).normal(size=len(values))
  return list(enumerate(np.asarray(values) * (1 + share * noise), 1))


SMOOTH = {
  "level": np.ones(STEPS),
  "warm-up": np.linspace(0.1, 1, STEPS),
  "steep": np.linspace(0, 40, STEPS),
  "quadratic": 0.1 + np.linspace(0, 1, STEPS) ** 2,
  "warm-up, then level": np.minimum(np.linspace(0.1, 2, STEPS), 1),
  "falling": np.exp(-np.linspace(0, 5, STEPS)),
  "falling, then a warm-up": np.exp(-np.linspace(0, 9, STEPS))
  + np.linspace(0, 0.5, STEPS),
}


@pytest.mark.parametrize("name", SMOOTH)
@pytest.mark.parametrize("share", [0.0, 0.001, 0.02, 0.2])
def test_a_smooth_curve_is_no_spike(said, name, share):
  assert said(noisy(SMOOTH[name], share)) == {}


@pytest.mark.parametrize("name", SMOOTH)
def test_a_jump_is_one_wherever_it_comes(said, name):
  curve = noisy(SMOOTH[name])
  step, loss = curve[300]
  curve[300] = (step, 10 * loss + 1)
  assert list(said(curve)) == [step]


def test_a_warning_says_which_how_far_and_on_what(config, said):
  curve = noisy(np.ones(200))
  losses = np.ones((2, 2))
  losses[1, 0] = 3.0
  curve.append((201, losses))
  (((step, (line,)),)) = said(curve).items()
  assert step == 201
  name = config.stacks[1].names[0]
  assert f"warning: step 201: the loss jumped to 3 of {name} (" in line
  far = float(line.split("(")[1].split(" standard")[0])
  assert 80 < far < 120  # 2 above the mean, in units of about 0.02
  assert "batch 9 of the data, in pass 2." in line
  assert not any(n in line for n in config.stacks[0].names)


def test_many_at_once_are_one_line(said):
  curve = [*noisy(np.ones(200)), (201, 5.0)]
  ((_, (line,)),) = said(curve).items()
  assert "and 1 more" in line and "\n" not in line


def test_too_few_losses_tell_nothing(said):
  curve = noisy(np.ones(LEAST + 1))
  early = [*curve[: LEAST - 1], (LEAST, 50.0)]
  assert said(early) == {}
  assert list(said([*curve[:LEAST], (LEAST + 1, 50.0)])) == [LEAST + 1]


def test_a_loss_that_stays_up_is_told_a_few_times(said):
  values = np.where(np.arange(STEPS) < 200, 1, 3)
  assert 1 <= len(said(noisy(values))) < 8


def test_what_is_not_finite_is_for_others_to_tell(said):
  curve = noisy(np.ones(STEPS))
  curve[150] = (151, np.nan)
  curve[160] = (161, np.inf)
  curve[170] = (171, 9.0)
  assert list(said(curve)) == [171]


def test_counts_are_of_the_time_since_they_were_asked_for(config):
  spikes = LossSpikeCheck(samples.observed(config))
  for n, loss in [*noisy(np.ones(100)), (101, 9.0)]:
    spikes.observe(n, made(config, loss), BUCKET)
  assert set(spikes.counts()["spikes"].values()) == {1}
  assert set(spikes.counts()["spikes"].values()) == {0}


@pytest.mark.parametrize("cut", [40, 200, 355])
def test_gone_on_with_it_counts_as_if_it_had_not_stopped(config, said, cut):
  """From the lines of the log alone."""
  curve = noisy(np.ones(STEPS))
  for at, loss in ((300, 1.3), (302, 1.5), (350, 2), (360, 3), (380, 5)):
    curve[at] = (at + 1, loss)
  curve[250] = (251, np.nan)
  whole = said(curve)
  assert len(whole) > 3
  logged = [line(config, *point) for point in curve[:cut]][-WINDOW:]
  rest = said(curve[cut:], before=logged)
  assert rest == {n: x for n, x in whole.items() if n > cut}
  # Without them the window would be another: the test can tell.
  assert cut < 300 or said(curve[cut:]) != rest


def line(config, step, loss):
  loss = float(f"{loss:.6g}") if np.isfinite(loss) else None
  names = [name for stack in config.stacks for name in stack.names]
  return json.dumps({"step": step} | {f"{name}/loss": loss for name in names})


def test_a_run_looks_at_every_step_and_counts(
  config, replace, capsys, monkeypatch
):
  """With a window so short that the ups and downs of a toy stand out."""
  monkeypatch.setattr(spikes, "LEAST", 2)
  monkeypatch.setattr(spikes, "FAR", -1.0)
  train(replace(config, log_every=6, checkpoint_every=6))
  out = capsys.readouterr().out
  told = [x for x in out.splitlines() if "the loss jumped" in x]
  assert told and all("batch" in x and "in pass 1." in x for x in told)
  (logged,) = pods.metrics(config)
  names = [name for stack in config.stacks for name in stack.names]
  counts = [logged[f"{name}/spikes"] for name in names]
  assert sum(counts) >= len(told)
