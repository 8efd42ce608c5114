"""What an experiment file ends in."""

import dataclasses
import os
import re
import textwrap
from collections.abc import Callable, Mapping

import rich

from jaxsae import evals, overrides, pod
from jaxsae.errors import UserError, did_you_mean, exit_on_user_error
from jaxsae.lm.weights import read_sizes
from jaxsae.runs import run_table
from jaxsae.runs.evaluate import evaluate
from jaxsae.runs.flops import Cost, cost_of, shares
from jaxsae.runs.open import Run, open_run
from jaxsae.train.config.run import TrainConfig
from jaxsae.train.loop import train
from jaxsae.train.process import workdir

Configs = Mapping[str, TrainConfig]  # by the name of the run


def main(
  config: TrainConfig,
  doc: str | None = None,
  then: Callable[[Run], None] | None = None,
) -> None:
  """Trains with the command line's overrides, evaluates, and goes on.

  Args:
    config: the experiment's.
    doc: its docstring, for `--help`.
    then: what the experiment does with the finished run.
  """
  with exit_on_user_error():
    parsed = overrides.parse(config, doc=doc)
    pod.join()
    run = _train_and_judge(parsed)
    if then is not None:
      then(run)


def main_each(configs: Callable[[], Configs], doc: str | None = None) -> None:
  """Trains and evaluates several runs, one after the other, or lists them.

  The command line's overrides hold for each. What is complete is left alone,
  so the same command goes on where it was stopped.

  Args:
    configs: makes the experiment's. The folder of each is named as it is, and
      `--workdir` is their parent.
    doc: its docstring, for `--help`.
  """
  with exit_on_user_error():
    choice, parsed = _parse(configs(), doc)
    chosen = _choose(choice, parsed)
    if choice.list:
      rich.print(run_table.table(chosen, _costs(chosen)))
    else:
      pod.join()
      _go_through(chosen)


@pod.wait_out_lost_process()
def _train_and_judge(config: TrainConfig) -> Run:
  train(config)
  run = open_run(config.workdir)
  results = evaluate(run)
  if pod.is_leader():
    rich.print(evals.table(results))
  return run


@dataclasses.dataclass(frozen=True)
class Shard:
  """One of several equal shares, written `2/4`; shares count from 1."""

  index: int
  count: int

  def __str__(self) -> str:
    return f"{self.index}/{self.count}"

  @classmethod
  def parse(cls, text: str) -> "Shard":
    """`"2/4"` → `Shard(2, 4)`."""
    match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
      raise UserError(
        "a share is its number, a stroke and how many there are, counted from"
        " 1, as in 1/4, 2/4, 3/4 and 4/4"
      )
    return cls(int(match[1]), int(match[2]))


@dataclasses.dataclass(frozen=True)
class _Selection:
  """Which runs, and what of them."""

  list: bool = False  # print the runs and what they cost, and train nothing
  only: str | None = None  # the name of one run, to leave out all others
  # i/n: only the i-th of n shares of the runs, which are about equal in FLOPs,
  # one for each of n machines; i counts from 1.
  shard: Shard | None = None


@dataclasses.dataclass(frozen=True)
class Choice(TrainConfig, _Selection):
  """A run's settings, and before them those that choose among runs."""

  workdir: str = "runs"  # where the folders of all runs are


def _parse(configs: Configs, doc) -> tuple[Choice, Configs]:
  """What the command line chooses, and each run with its overrides."""
  doc = f"{doc or ''}\n{_about(configs)}"
  choices = {
    name: overrides.parse(_as_choice(name, config), doc=doc)
    for name, config in configs.items()
  }
  parsed = {name: _as_config(name, choice) for name, choice in choices.items()}
  return next(iter(choices.values())), parsed


def _about(configs: Configs) -> str:
  """What `--help` says of the settings it lists."""
  return textwrap.fill(
    f"Settings hold for each run ({len(configs)} in all; --list names them)."
    f" The defaults shown are those of {next(iter(configs))}.",
    80,
  )


def _as_choice(name: str, config: TrainConfig) -> Choice:
  parent = config.workdir.removesuffix(f"/{name}")
  return Choice(**_fields(config) | {"workdir": parent})


def _as_config(name: str, choice: Choice) -> TrainConfig:
  folder = os.path.join(choice.workdir, name)
  return TrainConfig(**_fields(choice) | {"workdir": folder})


def _fields(config: TrainConfig) -> dict:
  names = (field.name for field in dataclasses.fields(TrainConfig))
  return {name: getattr(config, name) for name in names}


def _choose(choice: Choice, configs: Configs) -> Configs:
  if choice.only is not None and choice.shard is not None:
    raise UserError("--only and --shard both choose runs; give one of them.")
  names = list(configs)
  if choice.only is not None:
    names = [_known(choice.only, configs)]
  if choice.shard is not None:
    flops = {name: cost.flops for name, cost in _costs(configs).items()}
    names = shares(flops, choice.shard.count)[choice.shard.index - 1]
  return {name: configs[name] for name in names}


def _known(name: str, configs: Configs) -> str:
  if name in configs:
    return name
  guess = did_you_mean(name, list(configs))
  advice = f"{guess} (--list names all)" if guess else "see --list"
  raise UserError(f"--only={name} is none of the {len(configs)} runs; {advice}")


def _costs(configs: Configs) -> dict[str, Cost]:
  return {
    name: cost_of(config, read_sizes(config.lm))
    for name, config in configs.items()
  }


def _go_through(configs: Configs) -> None:
  if not configs:
    pod.print_on_leader(
      "no run is in this share; there are more shares than runs"
    )
  for number, (name, config) in enumerate(configs.items(), 1):
    done = workdir.is_complete(config)
    state = f"is complete: {config.workdir}" if done else "…"
    pod.print_on_leader(f"run {number} of {len(configs)}, {name} {state}")
    if not done:
      _train_and_judge(config)
