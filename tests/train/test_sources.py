"""Sources lose no bucket that is read ahead, and do not count it as taken."""

import threading
import time

import numpy as np
import pytest

from jaxsae import data
from jaxsae import mesh as meshes
from jaxsae.errors import UserError
from jaxsae.lm import Site, load_lm
from jaxsae.token_batch import TokenBatch
from jaxsae.train import loop
from jaxsae.train.sources import ArraySource, TextSource
from jaxsae.train.sources.text import open_batches


class Counting:
  """Batches numbered from 0, the whole of each filled with its number."""

  def __init__(self, config, fails_at=None):
    rows = config.bucket.microbatches * config.bucket.rows
    self._shape, self._fails_at = (rows, config.data.context), fails_at
    self.number = 0

  def get_state(self):
    return {"next_batch": self.number}

  def __next__(self):
    if self.number == self._fails_at:
      raise OSError("the disk is gone")
    self.number += 1
    rows = np.full(self._shape, self.number - 1, np.int32)
    return TokenBatch(positions=rows, segments=rows, tokens=rows)


@pytest.fixture
def mesh(config):
  return meshes.make(config.mesh)


def number_of(bucket):
  return int(bucket.batch.tokens[0, 0, 0])


@pytest.mark.parametrize("ahead", [0, 1, 3])
def test_positions_are_those_of_the_buckets_taken(config, mesh, ahead):
  batches = Counting(config)
  source = TextSource(config, mesh, None, batches)
  assert source.position == {"next_batch": 0}
  for i in range(3):
    bucket = source.take()
    for _ in range(ahead):
      source.peek()
    assert number_of(bucket) == i
    assert bucket.before == {"next_batch": i}
    assert bucket.after == source.position == {"next_batch": i + 1}
    assert batches.number == i + 1 + (ahead > 0)  # never more than one


def test_a_failure_while_reading_ahead_is_raised(config, mesh):
  source = TextSource(config, mesh, None, Counting(config, fails_at=1))
  source.take()
  with pytest.raises(OSError, match="the disk is gone"):
    source.peek()
  assert source.position == {"next_batch": 1}


def test_a_failure_in_a_reading_thread_is_raised_and_threads_end(
  config, mesh, monkeypatch
):
  corpus = loop.open_corpus(config, load_lm(config.lm))
  others = reading()

  def fail(*_):
    raise OSError("the disk is gone")

  monkeypatch.setattr(data.corpus, "fill_row", fail)
  batches = open_batches(config, mesh, corpus.train)
  source = TextSource(config, mesh, None, batches)
  with pytest.raises(OSError, match="the disk is gone"):
    source.take()
  assert reading() - others
  batches.close()
  deadline = time.monotonic() + 60
  while reading() - others and time.monotonic() < deadline:
    time.sleep(0.01)
  assert not reading() - others


def reading():
  """Grain's threads."""
  return {t for t in threading.enumerate() if "grain" in t.name}


def test_arrays_that_end_or_have_another_width_are_named():
  x = np.ones((4, 8), np.float32)
  source = ArraySource([x, x[:, :5]], [Site("resid", 0)], x)
  source.take()
  with pytest.raises(
    UserError, match=r"Array 1 .*\[4, 5\]; give \[tokens, 8\]"
  ):
    source.take()
  with pytest.raises(UserError, match="The arrays end after 1"):
    source.take()


def test_arrays_are_a_source_like_text():
  x = np.arange(24, dtype=np.float32).reshape(3, 4, 2)
  site = Site("resid", 0)
  source = ArraySource(x, [site], x[0])
  assert source.widths == {site: 2} and source.position == {"drawn": 0}
  assert source.peek() is source.take()
  source.go_to({"drawn": 2})
  bucket = source.take()
  assert (bucket.before, bucket.after) == ({"drawn": 2}, source.position)
  assert source.provenance(bucket) == {"drawn": 2}
  read = source.read(source.weights, bucket.batch)
  np.testing.assert_array_equal(read.sites[site], x[2][None])
  assert read.mask.shape == (1, 4) and read.mask.all()
  with pytest.raises(ValueError, match="cannot go back"):
    source.go_to({"drawn": 1})
