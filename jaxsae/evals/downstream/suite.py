"""Probing of autoencoders: its results, as JSON and as a table."""

import dataclasses
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from rich import box
from rich.table import Table

from jaxsae import tables
from jaxsae.errors import UserError
from jaxsae.evals.downstream.estimate import (
  RESAMPLES,
  Estimate,
  Score,
  resample,
  score,
)
from jaxsae.evals.downstream.labelled import LabelledTexts, Split, split
from jaxsae.evals.downstream.pool import (
  Pool,
  Pooled,
  pooled,
  sample_tokens,
  to_rows,
)
from jaxsae.evals.downstream.random_control import random_like
from jaxsae.evals.downstream.sparse_probe import probe_of_all, probe_of_few
from jaxsae.files import given_path, refusals_told, whole_file
from jaxsae.lm import Lm, Place, Taps
from jaxsae.sae import Sae

# The meaning of each name in the file; written into it.
DEFINITIONS = {
  "accuracy": "share of test texts that a probe puts in the right class",
  "auc": "area under its ROC curve: share of pairs of a text of the class and"
  " another in which the former has the higher score; of ties, half",
  "value": "mean over seeds, which draw the training and test texts",
  "low, high": "interval of 95%: percentiles 2.5 and 97.5 of the mean over"
  f" seeds on {RESAMPLES} resamples of the test texts, by groups of texts",
  "spread_over_seeds": "standard deviation over seeds",
  "latents": "a logistic regression on the k latents whose means over training"
  " texts of the class and over others differ most; latents of a text are"
  " pooled over its tokens as `pool` says",
  "control": "the same of an autoencoder of random directions with the same"
  " width and the same L0",
  "above_control": "latents - control, on the same texts",
  "raw": "the same on k coordinates of the activations that are read",
  "dense": "a logistic regression on all of these",
  "majority": "share of the larger class of the test texts",
  "chosen": "the k latents of the first seed, the most different first",
}


@dataclasses.dataclass(frozen=True)
class Probed:
  """The probes of k inputs on one task, and what they are to be compared with.

  `DEFINITIONS` explains each figure.
  """

  latents: Score
  control: Score
  raw: Score
  chosen: tuple[int, ...] = ()

  @property
  def above_control(self) -> Score:
    """What training adds: latents - control."""
    return self.latents - self.control

  @classmethod
  def mean(cls, several: "Sequence[Probed]") -> "Probed":
    """Returns the mean over tasks."""
    mean = lambda field: Score.mean([getattr(x, field) for x in several])
    return cls(mean("latents"), mean("control"), mean("raw"))

  def to_json(self) -> dict:
    """Returns the record for a file."""
    fields = ("latents", "control", "above_control", "raw")
    found = {field: getattr(self, field).to_json() for field in fields}
    return found | {"chosen": list(self.chosen)} if self.chosen else found


@dataclasses.dataclass(frozen=True)
class TaskResult:
  """The probing of one autoencoder for one class of one set of texts.

  Attributes:
    pool: how tokens of a text became one vector.
    train, test: the number of texts.
    majority: the share of the larger class of the test texts.
    dense: the probe of all activations.
    by_k: k → the probes of k inputs.
  """

  pool: str
  train: int
  test: int
  majority: float
  dense: Score
  by_k: Mapping[int, Probed]

  def to_json(self) -> dict:
    """Returns the record for a file."""
    return {
      "pool": self.pool,
      "train": self.train,
      "test": self.test,
      "majority": self.majority,
      "dense": self.dense.to_json(),
      "by_k": {str(k): found.to_json() for k, found in self.by_k.items()},
    }


@dataclasses.dataclass(frozen=True)
class ProbingResult:
  """The probing of one autoencoder; `DEFINITIONS` explains each figure.

  Attributes:
    name: the autoencoder's name.
    site: the sites that it reads and writes.
    width: the number of its latents.
    tasks: name of a task → its figures.
  """

  name: str
  site: Place
  width: int
  tasks: Mapping[str, TaskResult]

  def __repr__(self) -> str:
    """Names the autoencoder and its mean accuracies, in one line."""
    shown = [f"k={k} {x.latents.accuracy.value:.3f}" for k, x in self._means()]
    return (
      f"ProbingResult({self.name!r}, {len(self.tasks)} tasks, accuracy"
      f" {', '.join(shown)})"
    )

  def mean(self, k: int) -> Probed:
    """Returns the mean over tasks of the probes of k inputs."""
    return Probed.mean([task.by_k[k] for task in self.tasks.values()])

  @property
  def mean_dense(self) -> Score:
    """The mean over tasks of the dense probe."""
    return Score.mean([task.dense for task in self.tasks.values()])

  @property
  def mean_majority(self) -> float:
    """The mean over tasks of the majority's share."""
    return float(np.mean([task.majority for task in self.tasks.values()]))

  def _means(self) -> list[tuple[int, Probed]]:
    ks = next(iter(self.tasks.values())).by_k
    return [(k, self.mean(k)) for k in ks]

  def to_json(self) -> dict:
    """Returns the record for a file."""
    return {
      "version": 1,
      "name": self.name,
      "site": str(self.site),
      "width": self.width,
      "mean": {
        "majority": self.mean_majority,
        "dense": self.mean_dense.to_json(),
        "by_k": {str(k): found.to_json() for k, found in self._means()},
      },
      "tasks": {name: task.to_json() for name, task in self.tasks.items()},
    }


@dataclasses.dataclass(frozen=True)
class Probing:
  """How probes are trained and tested.

  Attributes:
    ks: numbers of latents that a probe reads.
    seeds: each draws training and test texts anew.
    context: tokens of a text, BOS included, that are read.
    train: training texts of a probe, at most.
    test: test texts of a probe, at most.
  """

  ks: tuple[int, ...] = (1, 2, 5, 16)
  seeds: tuple[int, ...] = (0, 1, 2)
  context: int = 128
  train: int = 4000
  test: int = 1000

  def __post_init__(self):
    for name in ("ks", "seeds"):
      if not getattr(self, name):
        raise UserError(f"{name}=() leaves nothing to do; give one or more.")
    if min(self.ks) < 1 or self.context < 2:
      raise UserError(
        f"ks={self.ks} and context={self.context} must be at least 1 and 2."
      )


def probe(
  lm: Lm,
  saes: Mapping[str, tuple[Place, Sae]],
  sets: Iterable[LabelledTexts],
  how: Probing | None = None,
  progress: Callable[[str], None] = lambda name: None,
) -> dict[str, ProbingResult]:
  """Probes autoencoders for the classes of labelled texts.

  Every set of texts is read by the language model once, whatever the number of
  autoencoders. On a mesh, texts are split over `data`.

  Args:
    lm: the language model.
    saes: name → site and autoencoder of raw activations, or the taps and a
      transcoder or crosscoder.
    sets: the labelled texts; no two have one name.
    how: how probes are trained and tested.
    progress: called with the name of each set when it is done.

  Raises:
    UserError: an autoencoder does not fit its site or has fewer latents than k,
      there are no texts, or too few of a class.
  """
  how, sets = how or Probing(), list(sets)
  placed = {name: (Taps.of(at), sae) for name, (at, sae) in saes.items()}
  _check(lm, placed, sets, how)
  drawn = [_draw(lm, texts, how) for texts in sets]
  controls = _controls(lm, placed, [some.rows for some in drawn])
  every = placed | {_control(name): x for name, x in controls.items()}
  tasks = {name: {} for name in placed}
  for some in drawn:
    vectors = pooled(lm, every, some.rows, some.pool)
    for task in some.tasks:
      raw = {x: _of_raw(task, vectors.raw[x], how) for x in vectors.raw}
      for name, (taps, _) in placed.items():
        found = _of_task(task, vectors, name, raw[taps.reads], how)
        tasks[name][task.name] = found
    progress(some.name)
  return {
    name: ProbingResult(name, saes[name][0], sae.width, tasks[name])
    for name, (_, sae) in placed.items()
  }


@dataclasses.dataclass(frozen=True, eq=False)
class _Drawn:
  """The texts of one set that some task is trained or tested on.

  Attributes:
    name: the name of the set.
    pool: how the tokens of a text become one vector.
    rows: the token ids of each text.
    tasks: the tasks.
  """

  name: str
  pool: Pool
  rows: Sequence[tuple[int, ...]]
  tasks: "Sequence[_Task]"


@dataclasses.dataclass(frozen=True, eq=False)
class _Task:
  """One class to tell from the others.

  Attributes:
    name: the name of the task.
    pool: how the tokens of a text become one vector.
    is_positive: bool [N].
    splits: one for each seed.
    weights: [R, N], of the resamples.
  """

  name: str
  pool: Pool
  is_positive: np.ndarray
  splits: Sequence[Split]
  weights: np.ndarray

  def of_few(
    self, x: Any, ks: Sequence[int]
  ) -> tuple[np.ndarray, dict[int, Score]]:
    """Returns the first seed's inputs, and the score of each k."""
    found = [probe_of_few(x, self.is_positive, s, ks) for s in self.splits]
    by_k = {k: score([of[k] for _, of in found], self.weights) for k in ks}
    return found[0][0], by_k

  def dense(self, x: np.ndarray) -> Score:
    """Returns the score of probes of all inputs."""
    found = [probe_of_all(x, self.is_positive, s) for s in self.splits]
    return score(found, self.weights)


def _draw(lm: Lm, texts: LabelledTexts, how: Probing) -> _Drawn:
  """Draws the texts of each task and seed; all others are not read."""
  texts, rows = _distinct(lm, texts, how.context)
  splits = {
    task: [split(texts, positive, how.train, how.test, s) for s in how.seeds]
    for task, positive in texts.tasks.items()
  }
  every = [x for some in splits.values() for x in some]
  kept = np.unique(np.concatenate([(*x.train, *x.test) for x in every]))
  some = texts.take(kept)
  weights = resample(some.group_numbers)
  tasks = [
    _Task(
      name=task,
      pool=texts.pool,
      is_positive=np.array(some.labels) == positive,
      splits=[x.renumbered(kept) for x in splits[task]],
      weights=weights,
    )
    for task, positive in texts.tasks.items()
  ]
  return _Drawn(texts.name, texts.pool, [rows[i] for i in kept], tasks)


def _distinct(
  lm: Lm, texts: LabelledTexts, context: int
) -> tuple[LabelledTexts, list[tuple[int, ...]]]:
  """Leaves out empty texts, and all but the first of those that read alike.

  Otherwise some test texts would be training texts too.
  """
  rows = to_rows(lm, texts.texts, context, texts.pool)
  first: dict[tuple[int, ...], int] = {}
  for index, row in enumerate(rows):
    if len(row) > 1:
      first.setdefault(row, index)
  return texts.take(list(first.values())), list(first)


def _control(name: str) -> str:
  """Returns the name of an autoencoder's control."""
  return f"{name} (control)"


def _controls(lm, placed, every_rows) -> dict[str, tuple[Taps, Sae]]:
  """Makes the controls, given the rows of each set of texts."""
  each = max(1, _SAMPLED // len(every_rows))
  some = [row for rows in every_rows for row in rows[:: -(-len(rows) // each)]]
  seen = sample_tokens(lm, placed, some)
  joined = lambda taps: np.concatenate([seen[s] for s in taps.reads], axis=-1)
  return {
    name: (taps, random_like(sae, joined(taps)[:_TOKENS]))
    for name, (taps, sae) in placed.items()
  }


_SAMPLED, _TOKENS = 128, 4096  # texts and tokens that thresholds are set on


def _of_raw(
  task: _Task, raw: np.ndarray, how: Probing
) -> tuple[Score, dict[int, Score]]:
  """Returns the scores of all activations, and of k coordinates of them."""
  return task.dense(raw), task.of_few(raw, how.ks)[1]


def _of_task(
  task: _Task,
  vectors: Pooled,
  name: str,
  raw: tuple[Score, dict[int, Score]],
  how: Probing,
) -> TaskResult:
  dense, coordinates = raw
  chosen, latents = task.of_few(vectors.latents[name], how.ks)
  _, control = task.of_few(vectors.latents[_control(name)], how.ks)
  first = task.splits[0]
  share = float(np.mean(task.is_positive[first.test]))
  return TaskResult(
    pool=task.pool,
    train=len(first.train),
    test=len(first.test),
    majority=max(share, 1 - share),
    dense=dense,
    by_k={
      k: Probed(
        latents=latents[k],
        control=control[k],
        raw=coordinates[k],
        chosen=tuple(chosen[:k].tolist()),
      )
      for k in how.ks
    },
  )


def _check(lm: Lm, placed, sets: Sequence[LabelledTexts], how: Probing) -> None:
  if not sets or not placed:
    raise UserError("There is nothing to probe; give texts and autoencoders.")
  names = [texts.name for texts in sets]
  if len(set(names)) < len(names):
    raise UserError(f"Two sets of texts have one name; of {names}, rename one.")
  for name, (taps, sae) in placed.items():
    taps.check(lm.config)
    if sae.w_enc.shape[0] != taps.d_in(lm.config):
      raise UserError(
        f"Autoencoder {name} reads activations of width {sae.w_enc.shape[0]},"
        f" but {taps} has {taps.d_in(lm.config)}; give an autoencoder that was"
        " trained on this site."
      )
    if sae.width < max(how.ks):
      raise UserError(
        f"Autoencoder {name} has {sae.width} latents, fewer than"
        f" k={max(how.ks)}; give smaller numbers."
      )


def write(
  results: Mapping[str, ProbingResult],
  path: str | os.PathLike[str],
  **about: Any,
) -> None:
  """Writes results and facts about them to a JSON file, atomically.

  Args:
    results: the results of `probe`.
    path: the file, such as `RUN/eval/probing.json`; its folders are made.
    **about: anything that JSON can hold, such as the step and the texts.

  Raises:
    UserError: the file cannot be written.
  """
  data = {
    "version": 1,
    "about": about,
    "definitions": DEFINITIONS,
    "results": [result.to_json() for result in results.values()],
  }
  text = json.dumps(data, indent=2, allow_nan=False) + "\n"
  with refusals_told(path), whole_file(given_path(path)) as partial:
    partial.write_text(text)


def table(
  results: Mapping[str, ProbingResult], width: int | None = None
) -> Table:
  """Makes a table of mean accuracies, with a line per autoencoder and k.

  Args:
    results: the results of `probe`.
    width: the columns of the terminal, by default of this one.
  """
  made = Table(
    box=box.SIMPLE_HEAD,
    show_edge=False,
    pad_edge=False,
    padding=(0, 1, 0, 0),
    caption="Mean accuracy over tasks, with its 95% interval over test texts."
    " Control: an autoencoder of random directions with the same width and L0."
    " Raw: k coordinates of the activations; dense: all of them.",
    caption_justify="left",
  )
  made.add_column("autoencoder", overflow="fold")
  for head in ("k", "latents", "control", "difference", "raw", "dense"):
    made.add_column(head, justify="right", no_wrap=True)
  for result in results.values():
    dense = result.mean_dense.accuracy
    for k, found in result._means():
      shown = (
        _with_interval(found.latents.accuracy),
        f"{found.control.accuracy.value:.3f}",
        _with_interval(found.above_control.accuracy),
        f"{found.raw.accuracy.value:.3f}",
        f"{dense.value:.3f}",
      )
      made.add_row(result.name, str(k), *shown)
  return tables.fit(made, width)


def _with_interval(estimate: Estimate) -> str:
  low, high = estimate.interval
  return f"{estimate.value:.3f}\n{low:.3f}–{high:.3f}"
