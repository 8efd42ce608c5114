"""The `jaxsae` command: plan a run, or inspect what a finished run made."""

import argparse
import sys

import rich

from jaxsae import evals, formats, runs
from jaxsae.errors import exit_on_user_error
from jaxsae.plan import compiler_process


@exit_on_user_error()
def main() -> None:
  """Runs `jaxsae eval|export|explore RUN` or `jaxsae plan EXPERIMENT`."""
  if sys.argv[1:2] == ["plan"]:  # it also takes the experiment's settings
    sys.exit(compiler_process.run(sys.argv[2:]))
  args = _parser().parse_args()
  args.action(args)


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser("jaxsae", description=__doc__)
  actions = parser.add_subparsers(required=True, metavar="ACTION")
  for action, about in (
    (
      _eval,
      "evaluate the autoencoders on held-out text; writes eval/STEP.json",
    ),
    (_export, "write the autoencoders in a published format"),
    (_explore, "write report/index.html, a page for exploring the latents"),
  ):
    name = action.__name__.strip("_")
    sub = actions.add_parser(name, help=about, description=about)
    sub.add_argument("run", metavar="RUN", help="the run's folder")
    sub.set_defaults(action=action)
    if action is _export:
      _export_arguments(sub)
  actions.add_parser(
    "plan", help="predict memory, seconds and dollars of a run on TPU slices"
  )
  return parser


def _export_arguments(sub: argparse.ArgumentParser) -> None:
  known = " or ".join(formats.FORMATS)
  sub.add_argument("--format", default="gemma_scope", help=known)
  sub.add_argument("--out", required=True, help="the folder to create")


def _eval(args) -> None:
  rich.print(evals.table(runs.evaluate(runs.open_run(args.run))))


def _export(args) -> None:
  for file in runs.export(runs.open_run(args.run), args.format, args.out):
    print(f"{args.out}/{file}")


def _explore(args) -> None:
  print(runs.explore(runs.open_run(args.run)))
