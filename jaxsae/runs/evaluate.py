"""Evaluation of a run's autoencoders on its held-out text."""

import functools
import itertools
import json
from collections.abc import Iterator

import numpy as np
from etils import epath

from jaxsae import data, evals, pod
from jaxsae.data import Corpus
from jaxsae.runs.open import Run
from jaxsae.token_batch import TokenBatch
from jaxsae.train.loop import open_corpus
from jaxsae.train.process import corpus_check, workdir


def evaluate(run: Run) -> dict[str, evals.Result]:
  """Evaluates all autoencoders on held-out text; writes `eval/STEP.json`."""
  batches = functools.partial(held_out_batches, run, corpus_of(run))
  results = evals.evaluate(
    run.lm, run.saes, batches, run.config.eval.loss_batches
  )
  pod.on_leader(lambda: evals.write(results, _record(run), step=run.step))
  return results


def figures(run: Run) -> dict[str, dict]:
  """Reads `eval/STEP.json` by autoencoder; evaluates first if it is missing."""
  if not pod.on_leader(_record(run).exists):
    evaluate(run)
  record = pod.on_leader(lambda: json.loads(_record(run).read_text()))
  return {result["name"]: result for result in record["results"]}


def _record(run: Run) -> epath.Path:
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
  batches = data.held_out_batches(corpus, settings.batch)
  return itertools.islice(batches, settings.batches)
