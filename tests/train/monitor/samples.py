"""A run to look at, and what a step of it leaves."""

import numpy as np

from jaxsae.train.metrics import Metrics
from jaxsae.train.monitor.check import ObservedRun
from jaxsae.train.sources import Bucket

BUCKET = Bucket({}, {"next_batch": 9, "seed": 0}, {})


class Source:
  """A source that only tells where a bucket comes from."""

  def provenance(self, bucket):
    place = {"pass": 2, "rows": [7, 5], "documents": ["two"]}
    return bucket.before | place

  def describe(self, bucket):
    return f"batch {bucket.before['next_batch']} of the data, in pass 2"


def observed(config, path=None, lines=()):
  """The run of a configuration, with these lines in its log."""
  newest = lambda count: list(lines)[-count:]
  return ObservedRun(config, path, Source(), newest)


def metrics(config, **values):
  """Metrics of every stack: of a few fields, alike for all members or not."""
  empty = Metrics(*[None] * 8, figures={})
  return tuple(
    empty.replace(**{name: of(stack) for name, of in values.items()})
    for stack in config.stacks
  )


def alike(value):
  """`metrics(config, l0=alike(3.0))`: the same number for every member."""
  return lambda stack: np.full(len(stack.names), value)
