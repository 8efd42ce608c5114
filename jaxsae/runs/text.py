"""The text on which a run's autoencoders are judged and shown."""

import dataclasses
import hashlib
import itertools
import os
import pathlib
import re
from collections.abc import Iterator

import numpy as np
from etils import epath

from jaxsae import data, pod
from jaxsae.data import Corpus
from jaxsae.files import expanded
from jaxsae.runs.open import Run
from jaxsae.token_batch import TokenBatch
from jaxsae.train.loop import open_corpus, tokenizer_of
from jaxsae.train.process import corpus_check, workdir


def corpus_of(run: Run) -> Corpus:
  """Opens the text that a run is judged on, as the held-out part of a corpus.

  That is what the run held out of its own text; any other text instead of it,
  and other tokens of it, are refused. If the run was opened with another text,
  it is all of that one.
  """
  if run.text:
    return other_corpus(run)
  corpus = open_corpus(run.config, run.lm)
  workdir.check_policy_of(run.path, corpus.policy)
  pod.on_leader(lambda: corpus_check.check(run.path, corpus))
  return corpus


def other_corpus(run: Run) -> Corpus:
  """Opens the other text that a run was opened with; waits for no process."""
  config = dataclasses.replace(run.config.data, source=run.text, documents=None)
  return data.open_held_out(config, tokenizer_of(run.config, run.lm))


def held_out_batches(
  run: Run, corpus: Corpus
) -> Iterator[TokenBatch[np.ndarray]]:
  """Reads the held-out batches of a run, in the same order on every call."""
  settings = run.config.eval
  batches = data.held_out_batches(corpus, settings.batch)
  return itertools.islice(batches, settings.batches)


def record_of(run: Run) -> epath.Path:
  """Returns the path of the file that holds a run's figures."""
  label = f".{_label(run.text)}" if run.text else ""
  return run.path / "eval" / f"{run.step}{label}.json"


def page_of(run: Run) -> epath.Path:
  """Returns the path of the page that shows a run."""
  return run.path / "report" / f"{_label(run.text)}.html"


def _label(text: str) -> str:
  """Returns the name of a text's files, which no other text has."""
  if not text:
    return "index"
  path = os.path.abspath(expanded(text))
  stem = re.sub("[^a-z0-9]+", "-", pathlib.Path(text).stem.lower()).strip("-")
  digest = hashlib.sha256(os.fsencode(path)).hexdigest()[:8]
  return f"{stem[:40]}-{digest}"
