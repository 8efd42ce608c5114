"""Shuffled, resumable batches with Grain, divided among processes."""

from collections.abc import Iterator, Sequence

import numpy as np
from absl import logging

from jaxsae.data.corpus import Corpus, Rows, usual_share
from jaxsae.errors import UserError
from jaxsae.token_batch import TokenBatch

# On import Grain warns about a profiler of worker processes; we start none.
logging.get_absl_logger().addFilter(
  lambda record: "worker profiling" not in str(record.msg)
)
import grain  # noqa: E402

_READ_AHEAD = grain.ReadOptions(num_threads=2, prefetch_buffer_size=8)


def batches(
  rows: Rows,
  batch: int,
  seed: int = 0,
  mine: Sequence[int] | np.ndarray | None = None,
) -> "Batches":
  """Makes an endless iterator over shuffled batches of `rows`.

  Every pass reads each row once, in another order. A batch may hold the
  end of one pass and the start of the next.

  Args:
    rows: the rows of one side of a corpus.
    batch: B, rows in the batch of all processes together.
    seed: decides the order.
    mine: the places in every batch, from 0, whose rows this process reads; by
      default all.

  Raises:
    UserError: fewer rows than one batch.
  """
  if batch < 1:
    raise UserError(f"batch={batch} reads nothing; use 1 or more")
  if len(rows) < batch:
    raise UserError(
      f"the text makes {len(rows)} rows of {rows.context} tokens and one batch"
      f" needs {batch}; use more text, a smaller batch (in a run, --bucket.rows"
      " or --bucket.microbatches) or a shorter --data.context"
    )
  places = range(batch) if mine is None else mine
  return Batches(rows, batch, seed, np.asarray(places))


class Batches(Iterator[TokenBatch[np.ndarray]]):
  """An iterator over batches whose whole state is the next batch's index.

  The state is the same on every process and for every number of processes.
  """

  def __init__(self, rows: Rows, batch: int, seed: int, mine: np.ndarray):
    self._identity = {"corpus": rows.fingerprint, "batch": batch, "seed": seed}
    # Grain's shuffle takes another order for each pass of the repeat. Only
    # indices are batched here, so the rows of other processes are never read.
    order = grain.MapDataset.range(len(rows)).seed(seed).shuffle().repeat()
    self._order, self._rows = order.batch(batch), rows
    self._dataset = self._order.map(lambda ids: rows.read(ids[mine]))
    self._next = 0
    self._reader = None

  def __next__(self) -> TokenBatch[np.ndarray]:
    """Reads this process's rows of the next batch, NumPy arrays [≤ B, T]."""
    if self._reader is None:
      rest = self._dataset.slice(slice(self._next, None))
      self._reader = iter(rest.to_iter_dataset(_READ_AHEAD))
    batch = next(self._reader)
    self._next += 1
    return batch

  def get_state(self) -> dict:
    """Returns the position, for JSON."""
    return {"next_batch": self._next, **self._identity}

  def set_state(self, state: dict) -> None:
    """Goes to a saved position.

    Raises:
      UserError: the state was made with other text, batch size or seed.
    """
    differing = [
      f"{name} was {state.get(name)!r} and is now {value!r}"
      for name, value in self._identity.items()
      if state.get(name) != value
    ]
    if differing:
      raise UserError(
        "the saved data position belongs to other batches: "
        + "; ".join(differing)
        + "; use the saved values or start a new run"
      )
    position = state.get("next_batch")
    if type(position) is not int or position < 0:
      raise UserError(
        f"the saved data position has next_batch={position!r}, not a count"
      )
    self.close()
    self._next = position

  def contents(self, state: dict) -> dict:
    """Describes the next batch after a saved position, for JSON.

    Returns:
      `pass`, counted from 1, of its first row; `rows`, the indices of the rows
      of all processes, in order; `documents`, the indices of their documents.
    """
    number = state["next_batch"]
    rows = [int(row) for row in self._order[number]]
    return {
      "pass": number * len(rows) // len(self._rows) + 1,
      "rows": rows,
      "documents": self._rows.documents_of(rows).tolist(),
    }

  def close(self) -> None:
    """Ends the threads that read ahead; keeps the position."""
    if self._reader is not None:
      self._reader.close()
    self._reader = None


def held_out_batches(
  corpus: Corpus, batch: int
) -> Iterator[TokenBatch[np.ndarray]]:
  """Yields every held-out row once, in order; pads the last batch to size.

  Raises:
    UserError: nothing is held out, or the batch has no rows.
  """
  if batch < 1:
    raise UserError(f"batch={batch} reads nothing; use 1 or more")
  rows = corpus.held_out
  if not len(rows):
    share = usual_share(corpus)
    raise UserError(f"nothing is held out; use --data.held_out={share}")
  return (
    rows.read(range(len(rows))[at : at + batch], batch)
    for at in range(0, len(rows), batch)
  )
