"""Evaluation of a run's autoencoders on its held-out text."""

import contextlib
import functools
import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
from etils import epath

from jaxsae import data, evals, overrides, pod
from jaxsae.data import Corpus
from jaxsae.files import check_writable, remove_leftovers
from jaxsae.runs.eval_progress import EvalProgress
from jaxsae.runs.open import Run
from jaxsae.runs.unfinished import Unfinished
from jaxsae.token_batch import TokenBatch
from jaxsae.train.loop import open_corpus
from jaxsae.train.process import agreement, corpus_check, workdir
from jaxsae.train.process.compile_cache import CompileCache
from jaxsae.train.process.shutdown import ShutdownSignal


def evaluate(run: Run) -> dict[str, evals.Result]:
  """Evaluates the autoencoders on held-out text; writes `eval/STEP.json`.

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
      run.path / "eval" / f"{run.step}.unfinished",
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
  passes = evals.count_passes(run.taps.values())
  return EvalProgress(min(batches, settings.batches), passes)


def _identity(run: Run, corpus: Corpus) -> dict[str, Any]:
  """Returns everything that decides the figures, to the last bit."""
  program = agreement.of_program(run.config).items()
  return {
    "checkpoint": [run.step, dict(run.members.prints)],
    "autoencoders": run.names,
    "text": corpus.fingerprint,
    "settings": _settings(run),
    "mesh": dict(run.mesh.shape),
    "device": jax.devices()[0].device_kind,
    # Of the run's settings, these are the only ones that matter here.
    "program": {k: v for k, v in program if not k.startswith("--")},
  }


def _settings(run: Run) -> dict[str, Any]:
  return overrides.to_json(run.config.eval)


def _write(run: Run, results: Mapping[str, evals.Result]) -> None:
  """Writes the results, after those that are already there of others."""
  record, settings = record_of(run), _settings(run)
  others = []
  if record.exists():
    before = evals.read(record)
    if before["about"].get("settings") == settings:
      others = [r for r in before["results"] if r["name"] not in results]
  remove_leftovers(record.parent)
  evals.write(results, record, others, step=run.step, settings=settings)


def figures(run: Run) -> dict[str, dict]:
  """Reads `eval/STEP.json` by autoencoder; evaluates if some are missing."""
  if not pod.on_leader(lambda: set(run.names) <= set(recorded(run))):
    evaluate(run)
  found = pod.on_leader(lambda: recorded(run))
  return {name: found[name] for name in run.names}


def recorded(run: Run) -> dict[str, dict]:
  """Returns the results in `eval/STEP.json` by autoencoder; there may be none.

  Only the leader of a pod calls it.
  """
  if not record_of(run).exists():
    return {}
  record = evals.read(record_of(run))
  return {result["name"]: result for result in record["results"]}


def record_of(run: Run) -> epath.Path:
  """Returns the path of the file that holds a run's figures."""
  return run.path / "eval" / f"{run.step}.json"


def corpus_of(run: Run) -> Corpus:
  """Opens the run's text; refuses any other, and other tokens of it."""
  corpus = open_corpus(run.config, run.lm)
  workdir.check_policy_of(run.path, corpus.policy)
  pod.on_leader(lambda: corpus_check.check(run.path, corpus))
  return corpus


def held_out_batches(
  run: Run, corpus: Corpus
) -> Iterator[TokenBatch[np.ndarray]]:
  """Reads the held-out batches of a run, in the same order on every call."""
  settings = run.config.eval
  rows = min(settings.batch, max(1, len(corpus.held_out)))
  batches = data.held_out_batches(corpus, rows)
  return itertools.islice(batches, settings.batches)
