"""An evaluation goes on where another one stopped, to the same results."""

import dataclasses

import numpy as np
import pytest

from jaxsae.evals import PARTS, Keeper, evaluate
from jaxsae.lm import Lm, Site, Taps
from tests.evals.samples import random_sae, random_transcoder

pytestmark = pytest.mark.slow


class Stopped(Exception):
  """A stand-in for the signal that ends a process."""


@dataclasses.dataclass
class Memory(Keeper):
  """Keeps the last sums of each part, and stops after some offers."""

  stop_after: int | None = None

  def __post_init__(self):
    self.kept, self.offers, self.passes_done = {}, 0, 0

  def recall(self, part):
    assert part in PARTS
    return self.kept.get(part)

  def offer(self, part, sums, done):
    self.kept[part] = {k: np.copy(v) for k, v in sums().items()}
    self.offers += 1
    self.passes_done += done
    if self.offers == self.stop_after:
      raise Stopped


@pytest.fixture(scope="module")
def saes():
  return {
    "resid.0/a": (Site("resid", 0), random_sae(16, 32, 0)),
    "resid.1/b": (Site("resid", 1), random_sae(16, 32, 1)),
    "t/c": (Taps.transcoder(1), random_transcoder(16, 32, 2)),
  }


@pytest.fixture(scope="module")
def whole(lm, saes, batches):
  """An evaluation that was not stopped, and its keeper."""
  keeper = Memory()
  found = evaluate(lm, saes, lambda: batches, 2, keeper=keeper)
  return found, keeper


def test_sums_are_offered_after_every_pass_of_a_step(whole):
  # Three batches; then two of them clean, at two ablations of three sites, and
  # with three autoencoders.
  passes = 1 + 2 * 3 + 3
  assert whole[1].offers == 3 + 1 + 2 * passes
  assert whole[1].passes_done == 1 + passes


@pytest.mark.parametrize("offers", [1, 3, 4, 5, 9, 23])
def test_one_that_was_stopped_goes_on(lm, saes, batches, whole, offers):
  expected, uninterrupted = whole
  keeper = Memory(stop_after=offers)
  with pytest.raises(Stopped):
    evaluate(lm, saes, lambda: batches, 2, keeper=keeper)
  keeper.stop_after = None
  found = evaluate(lm, saes, lambda: batches, 2, keeper=keeper)
  assert keeper.offers == uninterrupted.offers  # nothing was done twice
  assert found.keys() == expected.keys()
  for name, result in found.items():
    assert result.to_json() == expected[name].to_json()
    np.testing.assert_array_equal(result.density, expected[name].density)


def test_what_is_finished_is_not_even_read(lm, saes, whole, monkeypatch):
  def refuse(*_):
    raise AssertionError("the model was run")

  monkeypatch.setattr(Lm, "apply", refuse)
  keeper = Memory()
  keeper.kept = dict(whole[1].kept)
  found = evaluate(lm, saes, list, 2, keeper=keeper)
  assert found["t/c"].to_json() == whole[0]["t/c"].to_json()
