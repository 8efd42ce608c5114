"""A search tries layouts and finds the best that fits."""

import dataclasses

import pytest

from jaxsae.errors import UserError
from jaxsae.plan import search
from jaxsae.plan.compilation import Compilation
from jaxsae.plan.memory import MemoryBreakdown
from jaxsae.plan.plan import Plan
from jaxsae.plan.roofline import Part, Roofline
from jaxsae.plan.topology import parse
from jaxsae.train.config.run import BucketConfig, TrainConfig

SLICES = parse("v5e:2x4")
GIB = 2**30


@dataclasses.dataclass
class World:
  """A stand-in for `make` whose plans have given memory and time."""

  memory: object  # config → bytes
  seconds: object  # config → of a step, as predicted
  surprise: float = 0.0  # seconds more, once it is compiled
  compiled: list = dataclasses.field(default_factory=list)

  def make(self, config, slices, price_table, compiles=True):
    if config.mesh.model > 4:
      raise UserError("the language model has four heads")
    if compiles:
      self.compiled.append(config)
    extra = self.surprise if compiles else 0.0
    needed = self.memory(config)
    return Plan(
      config=config,
      slices=slices,
      shape=(8 // config.mesh.model, config.mesh.model),
      memory=MemoryBreakdown(0, 0, 0, 0, needed if compiles else None),
      roofline=Roofline((Part("", self.seconds(config) + extra, 0, 0),)),
      compilation=Compilation(1.0, needed, 0, "text") if compiles else None,
    )


@pytest.fixture
def world(monkeypatch):
  def build(memory, seconds, surprise=0.0):
    made = World(memory, seconds, surprise)
    monkeypatch.setattr(search, "make", made.make)
    return made

  return build


def config(**fields):
  return TrainConfig(bucket=BucketConfig(8, 32, 4096), **fields)


def quiet(line):
  del line


def by_model(config):
  """Returns the memory of a config: the larger `model`, the less."""
  return (32 / config.mesh.model) * GIB


def test_the_fastest_that_fits_is_found_and_no_more_is_compiled(world):
  here = world(by_model, lambda c: c.mesh.model + 1 / c.bucket.rows)
  start = here.make(config(), SLICES, {}, compiles=False)
  found = search.fastest(start, {}, quiet)
  best = found[0]
  assert best.plan.fits and best.plan.config.mesh.model == 4
  assert best.plan.config.bucket.rows == 256  # as few reads of the weights
  assert best.plan.config.bucket_tokens == config().bucket_tokens
  assert "--mesh.model=4" in best.flags and "--bucket.rows=256" in best.flags
  models = [one.mesh.model for one in here.compiled]
  assert models == sorted(models) and models.count(4) == 1


def test_compiling_can_change_which_layout_is_fastest(world):
  here = world(lambda c: GIB, lambda c: 1 + 0.01 * c.mesh.model, surprise=0.015)
  start = here.make(config(), SLICES, {}, compiles=False)
  search.fastest(start, {}, quiet)
  assert {one.mesh.model for one in here.compiled} == {1, 2}


def test_a_search_reports_that_nothing_fits(world):
  here = world(lambda c: 99 * GIB, lambda c: 1.0)
  start = here.make(config(), SLICES, {}, compiles=False)
  assert not any(one.plan.fits for one in search.fastest(start, {}, quiet))


def test_one_change_is_enough_and_the_fastest_comes_first(world):
  def memory(config):
    small = config.mesh.model > 1 or config.fsdp
    return (10 if small else 20) * GIB

  here = world(memory, lambda c: 2.0 if c.fsdp else 1.0 + c.mesh.model)
  start = here.make(config(), SLICES, {})
  found = search.remedies(start, {}, quiet)
  assert [str(one) for one in found] == [
    "--fsdp=true",
    "--mesh.model=2",
    "--mesh.model=4",
  ]


def test_pairs_of_changes_are_tried_if_one_is_not_enough(world):
  memory = lambda c: (8 if c.fsdp and c.mesh.model == 4 else 20) * GIB
  here = world(memory, lambda c: 1.0)
  found = search.remedies(here.make(config(), SLICES, {}), {}, quiet)
  assert [set(one.flags) for one in found] == [
    {"--fsdp=true", "--mesh.model=4"}
  ]


def test_layouts_are_ranked_by_hours_and_not_by_seconds_per_step(world):
  """Half the bucket in half the time is no faster."""
  memory = lambda c: (20 if c.bucket_tokens > 2**17 else 10) * GIB
  here = world(memory, lambda c: c.bucket_tokens / 2**18)
  bucket = dataclasses.replace(
    config(), data=dataclasses.replace(config().data, context=1024)
  )
  start = here.make(bucket, SLICES, {})
  (only,) = search.remedies(start, {}, quiet)
  assert str(only) == "--bucket.microbatches=4"
  assert only.plan.hours == pytest.approx(start.hours, rel=1e-3)


def test_bfloat16_is_proposed_where_the_bucket_is_float32(world):
  def memory(config):
    return (20 if config.bucket.dtype == "float32" else 10) * GIB

  here = world(memory, lambda c: 1.0)
  wide = dataclasses.replace(
    config(), bucket=BucketConfig(8, 32, 4096, dtype="float32")
  )
  found = search.remedies(here.make(wide, SLICES, {}), {}, quiet)
  assert [str(one) for one in found] == ["--bucket.dtype=bfloat16"]
