"""A stage that settings make impossible is told before the first step."""

import dataclasses

import pytest

from jaxsae.data import DataConfig
from jaxsae.errors import UserError
from jaxsae.lm import Taps
from jaxsae.lm.weights import read_sizes
from jaxsae.runs import main, stages
from jaxsae.train.config.run import TrainConfig
from jaxsae.train.config.sweep import SweepConfig

GEMMA = read_sizes("gemma2-tiny")
SITES = (Taps.parse("resid.3"),)


def config(**sweep) -> TrainConfig:
  return TrainConfig(
    sae=SweepConfig(**{"sites": SITES, "widths": (64,)} | sweep)
  )


def test_a_run_that_could_never_be_evaluated_does_not_start(
  tmp_path, monkeypatch, capsys
):
  """The stages are training, evaluation, export and exploration."""
  monkeypatch.setattr("sys.argv", ["x", "--data.held_out=0"])
  path = tmp_path / "run"
  with pytest.raises(SystemExit) as ended:
    main(dataclasses.replace(config(), workdir=str(path)))
  assert ended.value.code == 2 and not path.exists()
  assert "--data.held_out=0.05" in capsys.readouterr().err


def test_text_that_is_held_out_is_all_that_a_run_needs():
  stages.check(config())
  with pytest.raises(UserError, match="held_out=0"):
    stages.check(TrainConfig(data=DataConfig(held_out=0)))


@pytest.mark.parametrize("sweep", [{}, {"architecture": "gated"}])
def test_nothing_is_said_of_what_a_format_holds(sweep):
  assert not list(stages.notes(config(**sweep), GEMMA))


@pytest.mark.parametrize(
  ("sweep", "named"),
  [
    (
      {"architecture": "topk", "target_l0": (8,)},
      ["resid.3/64/topk", "k=8", "--format=sae_lens only"],
    ),
    (
      {"sites": (Taps.transcoder(3),), "skip": True},
      ["affine skip", "--format=gemma_scope_2 or sae_lens only"],
    ),
    (
      {"sites": (Taps.parse("resid.3+resid.4"),)},
      ["resid.3+resid.4", "not exported"],
    ),
  ],
)
def test_what_some_format_does_not_hold_is_told_at_the_start(sweep, named):
  (line,) = stages.notes(config(**sweep), GEMMA)
  for part in named:
    assert part in line


def test_the_others_of_a_run_are_not_left_out():
  also = (SweepConfig("k", "topk", SITES, (64,), target_l0=(8,)),)
  both = dataclasses.replace(config(), also=also)
  ((reason, stacks),) = stages.unheld(both, GEMMA, "gemma_scope").items()
  assert [str(stack) for stack in stacks] == ["resid.3/64/k"]
  assert "k=8" in reason
