"""The `jaxsae` command: plan a run, or inspect what a finished run made."""

import dataclasses
import sys
from collections.abc import Sequence
from typing import Any

import rich

from jaxsae import evals, overrides, runs
from jaxsae.errors import UserError, did_you_mean, exit_on_user_error
from jaxsae.plan import compiler_process

_ABOUT = {
  "eval": "evaluate the autoencoders on held-out text; writes eval/STEP.json",
  "export": "write the autoencoders in a published format",
  "explore": "write report/index.html, a page to look at the latents",
  "plan": "predict memory, time and dollars of a run on TPU slices",
}


@exit_on_user_error()
def main() -> None:
  """Runs `jaxsae eval|export|explore RUN` or `jaxsae plan EXPERIMENT`."""
  action, *argv = sys.argv[1:] or [""]
  actions = {
    "eval": _eval,
    "export": _export,
    "explore": _explore,
    "plan": _plan,
  }
  if action in ("-h", "--help"):
    print(_help())
  elif action in actions:
    actions[action](argv)
  else:
    problem = f"Unknown action {action}" if action else "No action"
    guess = did_you_mean(action, list(actions))
    advice = f"write jaxsae {'|'.join(actions)} (see jaxsae --help)"
    raise UserError(
      f"{problem}; {guess} {advice}" if guess else f"{problem}; {advice}"
    )


def _help() -> str:
  lines = [f"  {action:9} {about}" for action, about in _ABOUT.items()]
  return "\n".join(
    [
      "usage: jaxsae eval|export|explore RUN [--setting=value ...]",
      "       jaxsae plan EXPERIMENT.py [--setting=value ...]",
      "",
      *lines,
      "",
      "jaxsae ACTION --help lists the settings of an action.",
    ]
  )


@dataclasses.dataclass(frozen=True)
class RunFolder:
  """The finished run that a command is given."""

  run: str = ""  # the run's folder


@dataclasses.dataclass(frozen=True)
class ExportOptions:
  """The format and the folder of exported autoencoders."""

  format: str = "gemma_scope"  # the published format to write
  out: str = ""  # the new folder; required


def _eval(argv: Sequence[str]) -> None:
  (folder,) = _parse("eval", argv, RunFolder())
  rich.print(evals.table(runs.evaluate(runs.open_run(folder.run))))


def _export(argv: Sequence[str]) -> None:
  folder, options = _parse("export", argv, RunFolder(), ExportOptions())
  if not options.out:
    raise UserError("Export to which folder? Add --out=DIR, a new folder.")
  run = runs.open_run(folder.run)
  for file in runs.export(run, options.format, options.out):
    print(f"{options.out}/{file}")


def _explore(argv: Sequence[str]) -> None:
  (folder,) = _parse("explore", argv, RunFolder())
  print(runs.explore(runs.open_run(folder.run)))


def _plan(argv: Sequence[str]) -> None:
  sys.exit(compiler_process.run(argv))


def _parse(action: str, argv: Sequence[str], *configs: Any) -> tuple[Any, ...]:
  folder, *others = overrides.parse_several(
    *configs,
    argv=argv,
    doc=_ABOUT[action],
    usage=f"jaxsae {action}",
    words=("run",),
  )
  if not folder.run:
    raise UserError(f"Which run? Write jaxsae {action} RUN, the run's folder.")
  return folder, *others


if __name__ == "__main__":
  main()
