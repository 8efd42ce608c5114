"""Evaluation of a run's autoencoders on its held-out text."""

import contextlib
import functools
import os
import re
from collections.abc import Mapping
from typing import Any

import jax
from etils import epath

from jaxsae import evals, overrides, pod
from jaxsae.data import Corpus
from jaxsae.errors import UserError
from jaxsae.files import (
  check_writable,
  entries,
  given_path,
  is_file,
  remove_leftovers,
)
from jaxsae.runs.eval_progress import EvalProgress
from jaxsae.runs.open import Run
from jaxsae.runs.text import (
  corpus_of,
  held_out_batches,
  other_corpus,
  record_of,
)
from jaxsae.runs.unfinished import Unfinished
from jaxsae.train.process import agreement
from jaxsae.train.process.compile_cache import CompileCache
from jaxsae.train.process.shutdown import ShutdownSignal

RESULTS = "results.json"  # in the folder of an evaluation without a run


def evaluate(run: Run) -> dict[str, evals.Result]:
  """Evaluates the autoencoders on held-out text; writes `eval/STEP.json`.

  For a run that was opened with another text, `eval/STEP.NAME.json`.

  What is compiled is kept beside the run. If the process is asked to stop, it
  leaves what it measured and exits, with the same status as in training; the
  next evaluation goes on with that, see `unfinished.py`. Results of other
  autoencoders that the file has stay there, if they were measured alike.
  """
  with contextlib.ExitStack() as ending:
    ending.enter_context(CompileCache(str(run.path)))
    pod.on_leader(lambda: _check_place(run))
    corpus = corpus_of(run)
    stop = ending.enter_context(ShutdownSignal())
    unfinished = Unfinished(
      record_of(run).with_suffix(".unfinished"),
      _identity(run, corpus),
      stop,
      first=run.config.steps,  # where training ended to ask
    )
    pod.print_on_leader(f"evaluating {len(run.names)} autoencoders …")
    progress = ending.enter_context(_progress(run, corpus))
    results = evals.evaluate(
      run.lm,
      run.saes,
      functools.partial(held_out_batches, run, corpus),
      run.config.eval.loss_batches,
      progress,
      unfinished,
      run.config.eval.control_batches,
      kind=corpus.suffix_of,
    )
  pod.on_leader(lambda: _write(run, results))
  pod.on_leader(unfinished.remove)
  return results


def _check_place(run: Run) -> None:
  """Raises UserError if the figures could not be written in the end."""
  recorded(run)
  check_writable(record_of(run), "make room, or make it writable")


def _progress(run: Run, corpus: Corpus) -> EvalProgress:
  settings = run.config.eval
  batches = -(-len(corpus.held_out) // settings.batch)
  return EvalProgress(min(batches, settings.batches), list(run.taps.values()))


def _identity(run: Run, corpus: Corpus) -> dict[str, Any]:
  """Returns everything that decides the figures, to the last bit."""
  return {
    "checkpoint": [run.step, dict(run.members.prints)],
    "autoencoders": run.names,
    "text": corpus.fingerprint,
    "settings": _settings(run),
    "mesh": dict(run.mesh.shape),
    "device": jax.devices()[0].device_kind,
    "program": agreement.of_code(),
  }


def _settings(run: Run) -> dict[str, Any]:
  return overrides.to_json(run.config.eval)


def _write(run: Run, results: Mapping[str, evals.Result]) -> None:
  """Writes the results, after those that are already there of others."""
  record, about = record_of(run), _about(run)
  others = []
  if record.exists():
    before = evals.read(record)
    if about.items() <= before["about"].items():
      others = [r for r in before["results"] if r["name"] not in results]
  remove_leftovers(record.parent)
  source = {"source": run.text} if run.text else {}
  evals.write(results, record, others, step=run.step, **about, **source)


def _about(run: Run) -> dict[str, Any]:
  """Returns what must be the same for results to stand in one file."""
  if not run.text:
    return {"settings": _settings(run)}
  return {"settings": _settings(run), "text": other_corpus(run).fingerprint}


def figures(run: Run) -> dict[str, dict]:
  """Reads the figures of a run by autoencoder; evaluates if some are missing.

  Those of another text are used again only while it is the same.
  """
  if not pod.on_leader(lambda: set(run.names) <= set(recorded(run))):
    evaluate(run)
  found = pod.on_leader(lambda: recorded(run))
  return {name: found[name] for name in run.names}


def evaluation_page(run: Run) -> epath.Path:
  """Returns the path of the page that shows a run's figures."""
  return record_of(run).with_suffix(".html")


def recorded_at(path: str | os.PathLike[str]) -> list[dict]:
  """Reads the figures that some evaluation wrote.

  Args:
    path: a run's folder, of which the newest figures are read; the folder of an
      evaluation of published autoencoders; or a file of either.

  Raises:
    UserError: there are none, or they are damaged.
  """
  top = given_path(path)
  steps = [
    x for x in entries(top / "eval") if re.fullmatch(r"\d+\.json", x.name)
  ]
  newest = sorted(steps, key=lambda file: int(file.stem))[-1:]
  for file in (*newest, top / RESULTS, top):
    if is_file(file):
      return evals.read(file)["results"]
  raise UserError(
    f"{top} has no figures to compare with; give a run that is evaluated, the"
    " folder of an evaluation, or its .json file."
  )


def recorded(run: Run) -> dict[str, dict]:
  """Returns the results on record by autoencoder; there may be none.

  Only the leader of a pod calls it.
  """
  if not record_of(run).exists():
    return {}
  record = evals.read(record_of(run))
  if run.text and record["about"].get("text") != _about(run)["text"]:
    return {}
  return {result["name"]: result for result in record["results"]}
