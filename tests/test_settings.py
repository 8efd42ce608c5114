"""Every setting of the product declares a range, and is held to it."""

import dataclasses
import json
import typing

import jax
import numpy as np
import pytest

from experiments import pretrain_tiny
from jaxsae import cli, overrides
from jaxsae.errors import UserError
from jaxsae.overrides.kinds import options, words_for
from jaxsae.overrides.ranges import limit_of
from jaxsae.plan import experiment_file
from jaxsae.runs import RunSettings
from jaxsae.runs.main import RunSelection
from jaxsae.train import SweepConfig, TrainConfig, optim
from jaxsae.train.config.notes import notes

# What a command line can set: with every kind of group, and each once.
CONFIGS = {
  "run": TrainConfig(also=(SweepConfig(name="other"),)),
  "finished run": RunSettings(),
  "choice of runs": RunSelection(),
  "plan": experiment_file.Options(),
  "command": cli.FinishedRun(),
  "export": cli.ExportOptions(),
  "evaluation": cli.EvalOptions(),
  "conversion": cli.ConvertOptions(),
  "pretraining": pretrain_tiny.Config(),
}

BAD = {
  "negative": ["-1", "-1e9", "-0.5"],
  "zero": ["0", "-0"],
  "huge": ["1e300", "9223372036854775808", "9" * 400, "99999999999"],
  "tiny": ["1e-300"],
  "not finite": ["nan", "inf", "-inf"],
  "empty": ["", ","],
  "odd text": ["a\nb", "x" * 5000, "\u202ename", "\x00"],
}


EVERY = [
  pytest.param(config, setting, id=f"{where}-{setting.name}")
  for where, config in CONFIGS.items()
  for setting in overrides.settings(config)
]


def numbers_and_text(kind):
  """Yields the types in a type that have values without end."""
  for option in options(kind):
    if typing.get_origin(option) is tuple:
      yield from numbers_and_text(typing.get_args(option)[0])
    elif not is_closed(option):
      yield option


def is_closed(kind):
  """Returns whether a type has few values, or a `parse` that checks them."""
  is_choice = typing.get_origin(kind) is typing.Literal
  return is_choice or kind in (bool, type(None)) or hasattr(kind, "parse")


@pytest.mark.parametrize(("config", "setting"), EVERY)
def test_every_number_and_text_declares_a_range(config, setting):
  open_ended = [k for k in numbers_and_text(setting.kind) if not limit_of(k)]
  assert open_ended == []


@pytest.mark.parametrize(("config", "setting"), EVERY)
def test_a_bad_value_is_refused_by_name_or_is_in_the_range(config, setting):
  for value in [value for kind in BAD.values() for value in kind]:
    typed = f"--{setting.name}={value}"
    try:
      made = overrides.parse(config, [typed])
    except UserError as error:
      assert str(error).startswith(f"--{setting.name}="), typed
      assert "\n" not in str(error) and len(str(error)) < 400, typed
    else:
      assert_usable(made)


def assert_usable(config):
  """Asserts that all that is computed from settings can be computed."""
  text = json.dumps(overrides.to_json(config), allow_nan=False)
  assert overrides.from_json(type(config), json.loads(text)) == config
  if not isinstance(config, TrainConfig):
    return
  try:
    config = config.fitted(1)
  except UserError as error:  # sizes that do not suit one another
    assert str(error).startswith("--")
    return
  list(notes(config))
  for stack in config.stacks:
    settings, last = stack.sweep.optim, np.int32(config.updates)
    rates = [
      optim.learning_rate(settings, config.updates, n) for n in (0, last)
    ]
    rates += [optim.sparsity_warmup(settings, n) for n in (0, last)]
    assert np.isfinite(rates).all()
    assert stack.architecture.name
    for member in stack.members:
      jax.random.key(member.seed)
      numbers = [member.coefficient, member.target or 0, member.lr]
      assert np.isfinite(np.float32(numbers)).all()
  jax.random.key(config.data.seed)


@pytest.mark.parametrize(("config", "setting"), EVERY)
def test_the_ends_of_a_range_are_its_ends(config, setting):
  limit = limit_of(setting.kind)
  if not isinstance(limit, overrides.Range):
    return
  counts = "INT" in words_for(setting.kind).metavar
  for value in (limit.low, limit.high):
    assert limit.allows(value) != (limit.below and value == limit.high)
  below = limit.low - 1 if counts else np.nextafter(limit.low, -1)
  above = limit.high + 1 if counts else np.nextafter(limit.high, np.inf)
  for value in (below, above):
    text = overrides.show(int(value) if counts else float(value))
    with pytest.raises(UserError, match=f"^--{setting.name}="):
      overrides.parse(config, [f"--{setting.name}={text}"])


def test_every_group_checks_itself_in_python():
  """A config that forgets to call `check` accepts anything."""
  for config in CONFIGS.values():
    for group in groups(config):
      for field in dataclasses.fields(group):
        kind = typing.get_type_hints(type(group), include_extras=True)
        if limit_of(kind[field.name]) is None:
          continue
        with pytest.raises(UserError, match=f"^{field.name}="):
          dataclasses.replace(group, **{field.name: object()})


def groups(config):
  yield config
  for _, value in vars(config).items():
    for item in value if isinstance(value, tuple) else (value,):
      if dataclasses.is_dataclass(item) and not hasattr(item, "parse"):
        yield from groups(item)
