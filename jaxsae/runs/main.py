"""The `main` of experiment files: train with overrides, then evaluate."""

import builtins
import dataclasses
import os
import re
import sys
from collections.abc import Callable, Mapping

import rich

from jaxsae import evals, overrides, pod
from jaxsae.errors import UserError, did_you_mean, exit_on_user_error
from jaxsae.lm.weights import read_sizes
from jaxsae.overrides import Place
from jaxsae.runs import run_table, stages
from jaxsae.runs.evaluate import evaluate
from jaxsae.runs.flops import RunFlops, balanced_shares, run_flops
from jaxsae.runs.open import Run, open_run
from jaxsae.runs.settings import RunSettings
from jaxsae.runs.text import record_of
from jaxsae.train.config.run import TrainConfig
from jaxsae.train.loop import train
from jaxsae.train.process import workdir

Configs = Mapping[str, TrainConfig]  # by the name of the run


def main(
  config: TrainConfig,
  doc: str | None = None,
  then: Callable[[Run], None] | None = None,
) -> None:
  """Trains and evaluates one run, with the overrides of the command line.

  A run that is complete stays as it is.

  Args:
    config: the experiment's config.
    doc: the experiment's docstring, for `--help`.
    then: called with the finished run, also if it was complete before.
  """
  _check_command_line()
  with exit_on_user_error():
    parsed = overrides.parse(config, doc=doc)
    pod.join()
    run = _finished(parsed)
    if then is not None:
      then(run)


def main_each(configs: Callable[[], Configs], doc: str | None = None) -> None:
  """Trains and evaluates several runs, one after the other, or lists them.

  The overrides of the command line hold for each run. Complete runs are
  skipped, so the same command resumes after an interruption.

  Args:
    configs: makes the configs of the runs. `--workdir` is the folder that
      contains the runs' folders, which have the names of the runs.
    doc: the experiment's docstring, for `--help`.
  """
  _check_command_line()
  with exit_on_user_error():
    selection, parsed = _parse(configs(), doc)
    selected = _selected(selection, parsed)
    if selection.list:
      rich.print(run_table.table(selected, _flops_of(selected)))
    else:
      pod.join()
      _run_all(selected)


def _check_command_line() -> None:
  """Raises UserError in a notebook, whose command line is its kernel's.

  `%run experiments/NAME.py` gives an experiment a command line of its own.
  """
  program = os.path.basename(sys.argv[0] if sys.argv else "")
  is_kernel = "kernel" in program or program.startswith(("ipython", "jupyter"))
  if is_kernel and hasattr(builtins, "__IPYTHON__"):
    raise UserError(
      "main() reads a command line, and a notebook has none of its own; call"
      " train.train(config), then"
      " runs.evaluate(runs.open_run(config.workdir))."
    )


def _finished(config: TrainConfig) -> Run:
  """Returns the finished run; trains and evaluates it unless that is done."""
  if not pod.true_on_all(workdir.is_complete(config)):
    return _train_and_evaluate(config)
  run = _open(config)
  if run.step < run.config.steps:  # its last checkpoint was damaged
    return _train_and_evaluate(config)
  pod.print_on_leader(
    f"{run.path} is complete; its figures are in {record_of(run)}"
  )
  return run


def _open(config: TrainConfig) -> Run:
  return open_run(config.workdir, RunSettings.of(config, config.mesh))


@pod.wait_out_lost_process()
def _train_and_evaluate(config: TrainConfig) -> Run:
  stages.check(config)
  pod.print_on_leader(*stages.notes(config, read_sizes(config.lm)))
  train(config)
  run = _open(config)
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
    """Parses `"2/4"` as `Shard(2, 4)`.

    Raises:
      UserError: it is not a share, or there is no share of that number.
    """
    match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
      raise UserError(
        "a share is its number, a slash and the number of shares, counted from"
        " 1, as in 1/4, 2/4, 3/4 and 4/4"
      )
    return cls(int(match[1]), int(match[2]))


@dataclasses.dataclass(frozen=True)
class RunSelection:
  """Which runs of an experiment to train or list, and where they are."""

  list: bool = False  # print the runs and their FLOPs, and train nothing
  only: Place | None = None  # the name of one run, to leave out all others
  # i/n: only the i-th of n shares of the runs, one share for each of n
  # machines. Shares have about equal FLOPs; i counts from 1.
  shard: Shard | None = None
  workdir: Place = "runs"  # contains the folders of all runs

  def __post_init__(self):
    overrides.check(self)


def _parse(configs: Configs, doc: str | None) -> tuple[RunSelection, Configs]:
  """Returns the selected runs, and all configs with their overrides."""
  names = f"{len(configs)} in all; --list names them"
  parsed = {
    name: overrides.parse_several(
      RunSelection(workdir=config.workdir.removesuffix(f"/{name}")),
      config,
      doc=doc,
      headings=(
        "choice of runs:",
        f"settings of each run ({names}), with the defaults of"
        f" {next(iter(configs))}:",
      ),
    )
    for name, config in configs.items()
  }
  selection, _ = next(iter(parsed.values()))
  return selection, {
    name: dataclasses.replace(config, workdir=os.path.join(given.workdir, name))
    for name, (given, config) in parsed.items()
  }


def _selected(selection: RunSelection, configs: Configs) -> Configs:
  if selection.only is not None and selection.shard is not None:
    raise UserError("--only and --shard both select runs; give one of them.")
  names = list(configs)
  if selection.only is not None:
    names = [_known(selection.only, configs)]
  if selection.shard is not None:
    flops = {name: run.flops for name, run in _flops_of(configs).items()}
    shares = balanced_shares(flops, selection.shard.count)
    names = shares[selection.shard.index - 1]
  return {name: configs[name] for name in names}


def _known(name: str, configs: Configs) -> str:
  if name in configs:
    return name
  guess = did_you_mean(name, list(configs))
  advice = f"{guess} (--list names all)" if guess else "see --list"
  raise UserError(
    f"--only={name} is not one of the {len(configs)} runs; {advice}"
  )


def _flops_of(configs: Configs) -> dict[str, RunFlops]:
  return {
    name: run_flops(config, read_sizes(config.lm))
    for name, config in configs.items()
  }


def _run_all(configs: Configs) -> None:
  if not configs:
    pod.print_on_leader(
      "this share has no run; there are more shares than runs"
    )
  for number, (name, config) in enumerate(configs.items(), 1):
    done = pod.true_on_all(workdir.is_complete(config))
    state = f"is complete: {config.workdir}" if done else "…"
    pod.print_on_leader(f"run {number} of {len(configs)}, {name} {state}")
    if not done:
      _train_and_evaluate(config)
