"""The `jaxsae` command: plan a run, or inspect what a finished run made."""

import dataclasses
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import rich

from jaxsae import evals, formats, overrides, pod, runs
from jaxsae.app import evaluation as pages
from jaxsae.errors import (
  UserError,
  did_you_mean,
  ended_by_sigterm,
  exit_on_user_error,
)
from jaxsae.files import given_path
from jaxsae.lm import load_lm
from jaxsae.overrides import MOST, Place, PlaceOrEmpty, Range
from jaxsae.plan import compiler_process
from jaxsae.train.process import workdir

_ABOUT = {
  "eval": "evaluate autoencoders on held-out text; writes figures and a page",
  "export": "write the autoencoders in a published format",
  "convert": "write autoencoders of any format in another",
  "explore": "write report/index.html, a page to look at the latents",
  "probe": "tell classes of texts apart by a few latents, beside controls",
  "plan": "predict memory, time and dollars of a run on TPU slices",
}


@exit_on_user_error()
@ended_by_sigterm()
def main() -> None:
  """Runs `jaxsae eval|export|explore RUN`, `convert`, `probe` or `plan`."""
  action, *argv = sys.argv[1:] or [""]
  actions = {
    "eval": _eval,
    "export": _export,
    "convert": _convert,
    "explore": _explore,
    "probe": _probe,
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
      "usage: jaxsae eval RUN_OR_SAE ... [--setting=value ...]",
      "       jaxsae export|explore RUN [--setting=value ...]",
      "       jaxsae convert IN ... OUT --format=NAME [--setting=value ...]",
      "       jaxsae probe RUN_OR_SAE ... [--setting=value ...]",
      "       jaxsae plan EXPERIMENT.py [--setting=value ...]",
      "",
      *lines,
      "",
      "jaxsae ACTION --help lists the settings of an action.",
    ]
  )


@dataclasses.dataclass(frozen=True)
class FinishedRun:
  """The finished run that a command is given, and which autoencoders of it."""

  run: PlaceOrEmpty = ""  # the run's folder
  # Names of autoencoders, as in resid.12/16384/l0_32, to leave out all others.
  # Empty: all.
  only: tuple[Place, ...] = ()

  def __post_init__(self):
    overrides.check(self)


@dataclasses.dataclass(frozen=True)
class ExportOptions:
  """The format and the folder of exported autoencoders."""

  # The format to write: gemma_scope, gemma_scope_2, sae_lens or circuit_tracer.
  format: Place = formats.DEFAULT
  out: PlaceOrEmpty = ""  # the new folder; required

  def __post_init__(self):
    overrides.check(self)


@dataclasses.dataclass(frozen=True)
class ConvertOptions:
  """The new format of autoencoders, and what their files do not say."""

  # The format to write: gemma_scope, gemma_scope_2, sae_lens or circuit_tracer.
  format: PlaceOrEmpty = ""
  # The site of all of them, as in resid.12. Empty: as their files say.
  site: PlaceOrEmpty = ""
  # The L0 of those whose files do not say it.
  l0: Annotated[float, Range(0, 1e9)] | None = None
  # The language model, for transcoders whose gain another format leaves out.
  lm: PlaceOrEmpty = ""
  # How to read Llama Scope's files: as jumprelu, topk or relu. Empty: as their
  # authors do.
  reading: PlaceOrEmpty = ""

  def __post_init__(self):
    overrides.check(self)


@dataclasses.dataclass(frozen=True)
class EvalOptions:
  """What is evaluated besides finished runs, and what is shown beside it."""

  # Runs, folders of evaluations or their .json files, whose figures are shown
  # in the page too.
  against: tuple[Place, ...] = ()
  # The folder of the figures of published autoencoders, and of the page that
  # shows several runs or any of these.
  out: Place = "evaluation"
  # The site of published autoencoders whose files do not say it, as in
  # resid.12.
  site: PlaceOrEmpty = ""
  # Tokens in a row of text for published autoencoders, BOS included.
  context: Annotated[int, Range(2, 2e9)] = 1024

  def __post_init__(self):
    overrides.check(self)


@dataclasses.dataclass(frozen=True)
class JudgedText:
  """The text on which a finished run is judged, and how much of it."""

  # Other text to read, all of it: a file or folder. What is made of it is
  # written beside what is there. Empty: what the run held out of its own.
  text: PlaceOrEmpty = ""
  # Tokens to read, rounded up to whole batches. None: as --eval.batches has it.
  tokens: Annotated[int, Range(1, 10**15)] | None = None

  def __post_init__(self):
    overrides.check(self)

  def applied(
    self, settings: runs.RunSettings, context: int
  ) -> runs.RunSettings:
    """Returns settings that read so many tokens, in rows of `context`."""
    if self.tokens is None:
      return settings
    batches = -(-self.tokens // (settings.eval.batch * context))
    amount = dataclasses.replace(settings.eval, batches=min(batches, MOST))
    return dataclasses.replace(settings, eval=amount)


def _eval(argv: Sequence[str]) -> None:
  words, flags = overrides.words_and_flags(argv)
  settings, judged, options, _ = overrides.parse_several(
    runs.RunSettings(),
    JudgedText(),
    EvalOptions(),
    FinishedRun(),
    argv=flags,
    doc=_ABOUT["eval"],
    usage="jaxsae eval RUN_OR_SAE ...",
  )
  if not words:
    raise UserError(
      "Evaluate what? Write jaxsae eval RUN, the run's folder, or the folders"
      " of published autoencoders."
    )
  against = {path: runs.recorded_at(path) for path in options.against}
  finished = [word for word in words if formats.is_run(given_path(word))]
  found, page = {}, given_path(options.out) / "index.html"
  for word in finished:
    run, *_ = _open("eval", [word, *flags], JudgedText(), EvalOptions())
    found[word] = runs.evaluate(run)
    if words == [word] and not against:
      page = runs.evaluation_page(run)
  if published := [word for word in words if word not in finished]:
    name = options.out
    found[name] = _evaluate_published(published, settings, judged, options)
  if pod.is_leader():
    for results in found.values():
      rich.print(evals.table(results))
    records = {
      name: [result.to_json() for result in results.values()]
      for name, results in found.items()
    }
    pages.write(records | against, page)
    print(page)


def _evaluate_published(
  paths: Sequence[str],
  settings: runs.RunSettings,
  judged: JudgedText,
  options: EvalOptions,
) -> dict[str, evals.Result]:
  for path in paths:
    try:
      formats.autoencoders_at(path)
    except UserError as error:
      raise UserError(f"{path} is not a run, and {error}") from error
  if not judged.text:
    raise UserError(
      "Evaluate on which text? Published autoencoders held out none; add"
      " --text=, a file or folder."
    )
  pod.join()
  return runs.evaluate_published(
    paths,
    judged.text,
    judged.applied(settings, options.context),
    options.out,
    options.context,
    options.site or None,
  )


def _export(argv: Sequence[str]) -> None:
  *_, options = _parse("export", argv, runs.RunSettings(), ExportOptions())
  if not options.out:
    raise UserError("Export to which folder? Add --out=DIR, a new folder.")
  run, *_ = _open("export", argv, options)
  for file in runs.export(run, options.format, options.out):
    pod.print_on_leader(f"{options.out}/{file}")


def _convert(argv: Sequence[str]) -> None:
  words, flags = overrides.words_and_flags(argv)
  *paths, out = words or [""]
  (options,) = overrides.parse_several(
    ConvertOptions(),
    argv=flags,
    doc=_ABOUT["convert"],
    usage="jaxsae convert IN ... OUT",
  )
  if not paths or not options.format:
    raise UserError(
      "Convert what, to where, and to which format? Write jaxsae convert IN OUT"
      f" --format={'|'.join(formats.written())}."
    )
  lm = load_lm(options.lm) if options.lm else None
  place = options.site or None
  found = formats.convert(
    paths,
    options.format,
    out,
    place,
    options.l0,
    lm,
    options.reading or None,
  )
  for files in found:
    for file in files:
      print(f"{out}/{file}")


def _explore(argv: Sequence[str]) -> None:
  run, _, shown = _open("explore", argv, JudgedText(), runs.ReportConfig())
  pod.print_on_leader(str(runs.explore(run, shown)))


def _probe(argv: Sequence[str]) -> None:
  paths, flags = overrides.words_and_flags(argv)
  (config,) = overrides.parse_several(
    runs.ProbeConfig(),
    argv=flags,
    doc=_ABOUT["probe"],
    usage="jaxsae probe RUN_OR_SAE ...",
  )
  if not paths:
    raise UserError("Probe what? Write jaxsae probe RUN, or an autoencoder.")
  pod.join()
  results = runs.probe(paths, config)
  if pod.is_leader():
    rich.print(evals.downstream.table(results))


def _plan(argv: Sequence[str]) -> None:
  if not argv or {"-h", "--help"} & set(argv):
    # The help needs no compiler, which may not be installed.
    from jaxsae.plan import command

    command.main(argv)
  sys.exit(compiler_process.run(argv))


def _parse(
  action: str,
  argv: Sequence[str],
  settings: runs.RunSettings,
  *options: Any,
) -> tuple[Any, ...]:
  """Returns the selection, the settings and the options of a command line."""
  selection, *others = overrides.parse_several(
    FinishedRun(),
    settings,
    *options,
    argv=argv,
    doc=_ABOUT[action],
    usage=f"jaxsae {action}",
    words=("run",),
  )
  if not selection.run:
    raise UserError(f"Which run? Write jaxsae {action} RUN, the run's folder.")
  return selection, *others


def _open(
  action: str, argv: Sequence[str], *options: Any
) -> tuple[runs.Run, *tuple[Any, ...]]:
  """Opens the run that a command line names; returns it and the options.

  The defaults of its settings are those that the run was trained with.
  """
  named, *_ = _parse(action, argv, runs.RunSettings(), *options)
  pod.join()
  config = workdir.read_config(given_path(named.run))
  own = runs.RunSettings.of(config)
  selection, settings, *given = _parse(action, argv, own, *options)
  judged = next((x for x in given if isinstance(x, JudgedText)), JudgedText())
  settings = judged.applied(settings, config.data.context)
  run = runs.open_run(selection.run, settings, selection.only, judged.text)
  return run, *given


if __name__ == "__main__":
  main()
