"""`jaxsae plan`: from the command line to tables and a JSON file."""

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

import rich
from rich.table import Table

from jaxsae import tables
from jaxsae.errors import UserError
from jaxsae.files import check_writable
from jaxsae.plan import experiment_file as experiments
from jaxsae.plan import json_report, prices, search, table
from jaxsae.plan.experiment_file import Experiment, Options
from jaxsae.plan.plan import Plan, make, with_evaluation
from jaxsae.plan.prices import PriceTable
from jaxsae.plan.run_set import plan_all
from jaxsae.plan.topology import Slices, parse
from jaxsae.train.config.run import TrainConfig

USAGE = """\
usage: jaxsae plan EXPERIMENT.py --topology=v5p:4x4x4 [--setting=value ...]

Predicts whether the runs of an experiment fit TPU slices, and their hours and
dollars. Compiles with the TPU's own compiler; needs no TPU.
jaxsae plan EXPERIMENT.py --help lists all settings, including the experiment's.
"""

Planned = TypeVar("Planned")


def main(argv: Sequence[str]) -> None:
  """Makes the plan that `argv` asks for, and prints it.

  Raises:
    UserError: a setting is wrong.
  """
  if not argv or argv[0] in ("-h", "--help"):
    print(USAGE, end="")
    sys.exit(0 if argv else 2)
  if argv[0].startswith("-"):
    raise UserError(
      f"The experiment file comes first, before {argv[0]}; write jaxsae plan"
      " experiments/NAME.py --topology=v5p:4x4x4."
    )
  _plan(experiments.read(argv[0], argv[1:]))


def _plan(experiment: Experiment) -> None:
  options = experiment.options
  if options.json is not None:
    check_writable(options.json, "give --json=FILE another place")
  price_table = prices.read(options.prices)
  where = _slices(options)
  if len(experiment.configs) > 1:
    content = _run_sets(experiment, where, price_table)
  elif len(where) > 1:
    content = _comparison(experiment, where, price_table)
  else:
    content = _single(experiment, where[0], price_table)
  if options.json is not None:
    json_report.write(options.json, content)
    print(f"the same figures: {options.json}")


def _slices(options: Options) -> list[Slices]:
  """Returns the slices that the flags name, each once."""
  names = dict.fromkeys((options.topology, *options.topologies))
  names.pop("", None)
  if not names:
    raise UserError(
      "No slice is given; add one, as in --topology=v5e:2x4 or"
      " --topology=v5p:4x4x4."
    )
  return [parse(name, options.slices) for name in names]


def _single(
  experiment: Experiment, slices: Slices, price_table: PriceTable
) -> dict:
  """Plans one run on one kind of slice."""
  ((name, config),) = experiment.configs.items()
  options, candidates = experiment.options, []
  if options.search:
    plan, candidates = _searched(config, slices, price_table)
  else:
    _tell(f"compiling {name} for {slices} …" if options.compile else "")
    plan = make(config, slices, price_table, options.compile)
  plan = with_evaluation(plan)
  _show(table.of_plan(name, plan))
  print(table.source(plan))
  if plan.fits is False and not options.search:
    candidates = search.remedies(plan, price_table, _tell)
  _show_candidates(candidates, options.search, plan.fits)
  return {
    **json_report.of_plan(plan),
    "tries": json_report.of_candidates(candidates),
  }


def _searched(
  config: TrainConfig, slices: Slices, price_table: PriceTable
) -> tuple[Plan, list[search.Candidate]]:
  """Returns the best plan found, or that of the run as it is."""
  plan = make(config, slices, price_table, compiles=False)
  candidates = search.fastest(plan, price_table, _tell)
  return (candidates[0].plan if candidates else plan), candidates


def _show_candidates(
  candidates: Sequence[search.Candidate], searched: bool, fits: bool | None
) -> None:
  if candidates:
    title = "Searched" if searched else "What would make it fit, compiled"
    _show([table.of_candidates(candidates, title)])
  if searched and not fits:
    print("No mesh and no number of rows make it fit; use more chips.")
  elif fits is False and not candidates:
    print(
      "Nothing that was tried makes it fit: another mesh, FSDP, fewer rows per"
      " microbatch, a smaller bucket, or two of these; use more chips, or"
      " fewer or narrower autoencoders."
    )


def _comparison(
  experiment: Experiment, where: Sequence[Slices], price_table: PriceTable
) -> dict:
  """Plans one run on several kinds of slice."""
  ((name, config),) = experiment.configs.items()
  plans = {}
  for slices in where:
    _tell(f"planning {name} for {slices} …")
    plans[str(slices)] = _best(experiment.options, config, slices, price_table)
  _show([f"Prediction for {name}. Nothing here was measured on a TPU."])
  _show([table.of_slices(plans)])
  print(*dict.fromkeys(map(table.source, plans.values())), sep="\n")
  return _by_slices(plans, json_report.of_plan)


def _best(
  options: Options, config: TrainConfig, slices: Slices, price_table: PriceTable
) -> Plan:
  if options.search:
    return with_evaluation(_searched(config, slices, price_table)[0])
  return with_evaluation(make(config, slices, price_table, options.compile))


def _run_sets(
  experiment: Experiment, where: Sequence[Slices], price_table: PriceTable
) -> dict:
  """Plans several runs on each kind of slice."""
  options, run_sets = experiment.options, {}
  if options.search:
    raise UserError(
      f"--search is for a single run, and {experiment.path} has"
      f" {len(experiment.configs)}; name one of them, as in"
      f" --only={next(iter(experiment.configs))}."
    )
  for slices in where:
    runs = plan_all(
      experiment.configs,
      slices,
      price_table,
      options.at_once,
      options.compile,
      _tell,
    )
    run_sets[str(slices)] = runs
    _show(table.of_run_set(runs))
    print(table.source(next(iter(runs.plans.values()))))
  if len(run_sets) == 1:
    return json_report.of_run_set(next(iter(run_sets.values())))
  return _by_slices(run_sets, json_report.of_run_set)


def _by_slices(
  found: Mapping[str, Planned], write: Callable[[Planned], dict]
) -> dict:
  return {"prediction": True, "plans": {k: write(v) for k, v in found.items()}}


def _show(pieces: Iterable[str | Table]) -> None:
  for piece in pieces:
    if isinstance(piece, str):
      print(piece)
    else:
      rich.print(tables.fit(piece), "", sep="\n")


def _tell(line: str) -> None:
  """Prints progress on stderr, apart from the result."""
  if line:
    print(line, file=sys.stderr, flush=True)
