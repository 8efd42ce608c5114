"""Searches for a better layout of a run on the same slices, by compiling."""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence

from jaxsae import overrides
from jaxsae.errors import UserError
from jaxsae.plan.plan import Plan, make
from jaxsae.plan.prices import PriceTable

Tell = Callable[[str], None]

_MAX_COMPILED = 6  # candidates to compile before giving up
_ENOUGH = 3  # candidates that fit


@dataclasses.dataclass(frozen=True)
class Candidate:
  """A layout to try.

  Attributes:
    flags: flags to add to the command, as in --mesh.model=4.
    plan: the plan with these flags.
  """

  flags: tuple[str, ...]
  plan: Plan

  def __str__(self) -> str:
    return " ".join(self.flags)


def fastest(plan: Plan, price_table: PriceTable, tell: Tell) -> list[Candidate]:
  """Searches all meshes and rows per microbatch for the fastest that fits.

  The bucket stays as it is. A compiled plan is never faster than its
  prediction, so the search ends when no other prediction is faster than the
  best compiled plan.

  Args:
    plan: the plan of the run as it is; need not be compiled.
    price_table: the price of each kind of chip.
    tell: is called with a line of progress.

  Returns:
    All candidates that were compiled, those that fit first, fastest first.
  """
  found: list[Candidate] = []
  for one in _predicted(plan, _layouts(plan), price_table):
    best = min((c.plan.hours for c in found if c.plan.fits), default=None)
    if best is not None and one.plan.hours >= best:
      break
    found.append(_compiled(one, price_table, tell))
  return _ranked(found)


def remedies(
  plan: Plan, price_table: PriceTable, tell: Tell
) -> list[Candidate]:
  """Searches for one change, or else two, that make a run fit.

  Returns:
    The candidates that fit, fastest first.
  """
  singles = list(_changes(plan))
  pairs = [
    (*one, *other)
    for one, other in itertools.combinations(singles, 2)
    if not _names(one) & _names(other)
  ]
  for layouts in (singles, pairs):
    fitting: list[Candidate] = []
    possible = _predicted(plan, layouts, price_table)
    for one in possible[:_MAX_COMPILED]:
      done = _compiled(one, price_table, tell)
      if done.plan.fits:
        fitting.append(done)
      if len(fitting) == _ENOUGH:
        break
    if fitting:
      return _ranked(fitting)
  return []


def _layouts(plan: Plan) -> Iterator[tuple[str, ...]]:
  """Yields the flags of every mesh and every number of rows worth trying."""
  config = plan.config
  rows = config.microbatches * config.rows
  for model, each in itertools.product(
    _powers(plan.slices.devices), _powers(rows)
  ):
    if rows % each == 0 and config.rows / 8 <= each <= 8 * config.rows:
      yield (
        f"--mesh.model={model}",
        "--mesh.data=none",
        f"--bucket.rows={each}",
        f"--bucket.microbatches={rows // each}",
      )


def _changes(plan: Plan) -> Iterator[tuple[str, ...]]:
  """Yields the flags of single changes that take less memory."""
  config, model = plan.config, plan.shape[1]
  for times in (2, 4, 8, 16):
    yield (f"--mesh.model={times * model}", "--mesh.data=none")
  if not config.fsdp and plan.shape[0] > 1:
    yield ("--fsdp=true",)
  for times in (2, 4):
    if config.rows % times == 0:
      yield (
        f"--bucket.rows={config.rows // times}",
        f"--bucket.microbatches={times * config.microbatches}",
      )
  if config.microbatches % 2 == 0:
    yield (f"--bucket.microbatches={config.microbatches // 2}",)
  if config.bucket.dtype == "float32":
    yield ("--bucket.dtype=bfloat16",)


def _names(flags: Sequence[str]) -> set[str]:
  return {flag.partition("=")[0] for flag in flags}


def _powers(most: int) -> Iterator[int]:
  """Yields the powers of two up to `most`."""
  return itertools.takewhile(lambda n: n <= most, (2**i for i in range(32)))


def _predicted(
  plan: Plan, layouts: Iterable[tuple[str, ...]], price_table: PriceTable
) -> list[Candidate]:
  """Returns the layouts that are possible, not compiled yet, fastest first."""
  found = []
  for flags in layouts:
    try:
      config = overrides.parse(plan.config, flags)
      made = make(config, plan.slices, price_table, compiles=False)
    except UserError:  # the mesh does not divide something
      continue
    if made.fits is not False:
      found.append(Candidate(_shown(flags, plan), made))
  return sorted(found, key=lambda one: one.plan.hours)


def _shown(flags: Sequence[str], plan: Plan) -> tuple[str, ...]:
  """Drops flags that the run does not need."""
  if plan.config.mesh.data is None:
    return tuple(flag for flag in flags if flag != "--mesh.data=none")
  return tuple(flags)


def _compiled(one: Candidate, price_table: PriceTable, tell: Tell) -> Candidate:
  tell(f"compiling with {one} …")
  return Candidate(
    one.flags, make(one.plan.config, one.plan.slices, price_table)
  )


def _ranked(found: list[Candidate]) -> list[Candidate]:
  return sorted(found, key=lambda one: (not one.plan.fits, one.plan.hours))
