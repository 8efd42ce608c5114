"""Contradictory settings are refused in one sentence."""

import re

import pytest

from jaxsae import overrides
from jaxsae.errors import UserError
from jaxsae.sae.penalty import L0, BatchQuadratic, Frequency, Quadratic, Tanh
from jaxsae.train import SweepConfig, TrainConfig


@pytest.mark.parametrize(
  ("settings", "sentence"),
  [
    (
      {"target_l0": (12, 24.5)},
      "target_l0=12,24.5 is not used by penalty=l0; add penalty=quadratic (or"
      " batch_quadratic) to pull L0 there, or target_l0= to let λ decide.",
    ),
    (
      {"target_l0": (12,), "penalty": "tanh"},
      "target_l0=12 is not used by penalty=tanh; add penalty=quadratic (or"
      " batch_quadratic) to pull L0 there, or target_l0= to let λ decide.",
    ),
    (
      {"penalty": "quadratic"},
      "penalty=quadratic pulls L0 to targets, and there are none; add e.g."
      " target_l0=32.",
    ),
    (
      {"penalty": "batch_quadratic"},
      "penalty=batch_quadratic pulls L0 to targets, and there are none; add"
      " e.g. target_l0=32.",
    ),
    (
      {"penalty": "l1"},
      "penalty=l1 must be l0, quadratic, batch_quadratic or tanh.",
    ),
    (
      {"frequency_scale": 0.0},
      "frequency_scale=0 must be a number from 1e-30 to 1e6.",
    ),
    ({"bandwidth": 0.0}, "bandwidth=0 must be a number from 1e-30 to 1e6."),
    (
      {"architecture": "relu", "target_l0": (12,)},
      "target_l0=12 is not used by architecture=relu; add target_l0= to let λ"
      " decide.",
    ),
    (
      {"architecture": "topk", "target_l0": (12, 24.5)},
      "target_l0=12,24.5: topk counts latents, so give whole numbers.",
    ),
    (
      {"prefixes": (0.5, 0.25)},
      "prefixes=0.5,0.25 do not ascend between 0 and 1; give shares of the"
      " width, as in prefixes=0.0625,0.25.",
    ),
    (
      {"prefixes": (0.001, 0.5), "widths": (64,)},
      "prefixes=0.001,0.5 must each have latents of their own, for which"
      " widths=64 is too small; make it larger.",
    ),
    (
      {"skip": True},
      "skip=true is for transcoders, and sites=resid.12 has others; name only"
      " transcoder sites, as in sites=transcoder.12.",
    ),
    (
      {"seeds": (1, 1)},
      "seeds=1,1 has 1 twice; give each once, as in seeds=1.",
    ),
    (
      {"architecture": "topk", "target_l0": (12, 80), "widths": (64, 256)},
      "target_l0=12,80 asks for 80 active latents of 64; give targets up to"
      " 64, or larger widths.",
    ),
    (
      {"penalty": "quadratic", "target_l0": (65.0,), "widths": (64,)},
      "target_l0=65 asks for 65 active latents of 64; give targets up to 64,"
      " or larger widths.",
    ),
  ],
)
def test_contradictory_settings_get_one_sentence(settings, sentence):
  with pytest.raises(UserError) as caught:
    SweepConfig(**settings)
  assert str(caught.value) == sentence


@pytest.mark.parametrize(
  ("typed", "penalties"),
  [
    ([], (L0(),)),
    (["--sae.penalty=tanh"], (Tanh(4.0),)),
    (["--sae.penalty=quadratic", "--sae.target_l0=8"], (Quadratic(),)),
    (["--sae.target_l0=8", "--sae.penalty=batch_quadratic"],
     (BatchQuadratic(),)),
    (["--sae.frequency_scale=0.1"], (L0(), Frequency(0.1))),
  ],
)  # fmt: skip
def test_penalties_are_chosen_by_name(typed, penalties):
  config = overrides.parse(TrainConfig(), typed)
  architecture = config.stacks[0].architecture
  assert architecture.penalties == penalties
  assert hash(architecture) == hash(config.stacks[0].architecture)


def test_a_misspelt_penalty_gets_a_guess():
  with pytest.raises(UserError, match="did you mean quadratic"):
    overrides.parse(TrainConfig(), ["--sae.penalty=quadratc"])


def test_help_lists_the_penalties():
  text = overrides.help_text(TrainConfig())
  assert "--sae.penalty=l0|quadratic|batch_quadratic|tanh" in text


def test_the_kernel_trains_encoders_only_if_asked():
  to_input = SweepConfig(ste_to_input=True)
  assert not SweepConfig().stacks[0].architecture.kernel.to_input
  assert to_input.stacks[0].architecture.kernel.to_input


TWICE = TrainConfig(also=(SweepConfig(name="other"),))


@pytest.mark.parametrize(
  "typed",
  [
    "--bucket.rows=48 --bucket.update_tokens=100",
    "--bucket.rows=32 --bucket.microbatches=1 --bucket.update_tokens=224",
    "--bucket.rows=1 --bucket.microbatches=1 --bucket.update_tokens=1"
    " --tokens=1e15",
    "--sae.penalty=quadratic --sae.target_l0=8,16,8",
    "--sae.penalty=quadratic",
    "--sae.architecture=topk --sae.widths=16",
    "--sae.target_l0=8",
    "--sae.architecture=relu --sae.target_l0=8",
    "--sae.skip=true",
    "--sae.prefixes=0.5,0.25",
    "--sae.seeds=1,1",
    "--also.0.learning_rates=0.1,0.1000000001",
    "--sae.name=other",
    "--also.0.name=None",
  ],
)
def test_every_hint_of_an_error_works(typed):
  """As typed after what was wrong, which it replaces."""
  argv = typed.split()
  with pytest.raises(UserError) as caught:
    overrides.parse(TWICE, argv)
  advice = str(caught.value).partition(";")[2]
  hints = [hint.rstrip(".;,") for hint in re.findall(r"--[\w.]+=\S*", advice)]
  assert hints
  for hint in hints:
    overrides.parse(TWICE, [*argv, hint])
