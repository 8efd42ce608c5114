"""A length of time is a setting that is typed, saved and read back."""

import json

import pytest

from jaxsae import overrides
from jaxsae.errors import UserError
from jaxsae.train.config.duration import Duration
from jaxsae.train.config.run import TrainConfig


@pytest.mark.parametrize(
  "text, seconds",
  [("90s", 90), ("20min", 1200), ("30m", 1800), ("1.5h", 5400)],
)
def test_times_are_typed_saved_and_read_back(text, seconds):
  config = overrides.parse(TrainConfig(), [f"--checkpoint_every={text}"])
  assert config.checkpoint_every.seconds == seconds
  saved = json.loads(json.dumps(overrides.to_json(config)))
  assert overrides.from_json(TrainConfig, saved, "here") == config


def test_a_number_is_still_a_number_of_buckets():
  config = overrides.parse(TrainConfig(), ["--checkpoint_every=7"])
  assert config.checkpoint_every == 7
  saved = overrides.to_json(config)
  assert saved["checkpoint_every"] == 7
  assert overrides.from_json(TrainConfig, saved, "here") == config


@pytest.mark.parametrize("text", ["0min", "20 min", "min", "-3h", "5days", ""])
def test_what_is_no_time_is_refused(text):
  with pytest.raises(UserError, match="20min"):
    overrides.parse(TrainConfig(), [f"--checkpoint_every={text}"])


def test_no_buckets_at_all_are_refused():
  with pytest.raises(UserError, match="checkpoint_every=0"):
    overrides.parse(TrainConfig(), ["--checkpoint_every=0"])


def test_equal_times_are_equal_however_they_are_written():
  assert Duration.parse("60min") == Duration.parse("1h")
