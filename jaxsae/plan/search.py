"""Other ways to lay a run out on the same slices, tried by compiling them."""

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence

from jaxsae import overrides
from jaxsae.errors import UserError
from jaxsae.plan.plan import Plan, make

_MOST = 6  # that are compiled before it is said that nothing fits
_ENOUGH = 3  # that fit


@dataclasses.dataclass(frozen=True)
class Candidate:
  """One of them.

  Attributes:
    flags: what to add to the command, as in --mesh.model=4.
    plan: what comes of it.
  """

  flags: tuple[str, ...]
  plan: Plan

  def __str__(self) -> str:
    return " ".join(self.flags)


def cheapest(
  plan: Plan, price_table, tell: Callable[[str], None]
) -> list[Candidate]:
  """Of all meshes and rows of a microbatch, the cheapest that fits, first.

  The bucket stays as it is. What is compiled costs no less than was predicted
  of it before, so when the best so far is cheaper than the rest can be, the
  rest is left alone.

  Args:
    plan: of the run as it is; need not be compiled.
    price_table: of chips, by kind.
    tell: is told what is under way.

  Returns:
    All that were compiled, those that fit first, in order of their time.
  """
  found: list[Candidate] = []
  for one in _predicted(plan, _layouts(plan), price_table):
    best = min((t.plan.hours for t in found if t.plan.fits), default=None)
    if best is not None and one.plan.hours >= best:
      break
    found.append(_compiled(one, price_table, tell))
  return _ranked(found)


def remedies(
  plan: Plan, price_table, tell: Callable[[str], None]
) -> list[Candidate]:
  """What makes a run fit that does not: one change, or else two.

  Returns:
    Those that fit, in order of their time.
  """
  singles = list(_changes(plan))
  pairs = [
    (*one, *other)
    for one, other in itertools.combinations(singles, 2)
    if not _names(one) & _names(other)
  ]
  for candidates in (singles, pairs):
    fitting: list[Candidate] = []
    possible = _predicted(plan, candidates, price_table)
    for one in possible[:_MOST]:
      done = _compiled(one, price_table, tell)
      if done.plan.fits:
        fitting.append(done)
      if len(fitting) == _ENOUGH:
        break
    if fitting:
      return _ranked(fitting)
  return []


def _layouts(plan: Plan) -> Iterator[tuple[str, ...]]:
  """Flags of every mesh and every number of rows that is worth a look."""
  bucket = plan.config.bucket
  rows = bucket.microbatches * bucket.rows
  for model, some in itertools.product(
    _powers(plan.slices.devices), _powers(rows)
  ):
    if rows % some == 0 and bucket.rows / 8 <= some <= 8 * bucket.rows:
      yield (
        f"--mesh.model={model}",
        "--mesh.data=none",
        f"--bucket.rows={some}",
        f"--bucket.microbatches={rows // some}",
      )


def _changes(plan: Plan) -> Iterator[tuple[str, ...]]:
  """Flags that take less memory, each by one idea."""
  bucket, model = plan.config.bucket, plan.shape[1]
  for times in (2, 4, 8, 16):
    yield (f"--mesh.model={times * model}", "--mesh.data=none")
  if not plan.config.fsdp and plan.shape[0] > 1:
    yield ("--fsdp=true",)
  for times in (2, 4):
    if bucket.rows % times == 0:
      yield (
        f"--bucket.rows={bucket.rows // times}",
        f"--bucket.microbatches={times * bucket.microbatches}",
      )
  if bucket.microbatches % 2 == 0:
    yield (f"--bucket.microbatches={bucket.microbatches // 2}",)
  if bucket.dtype == "float32":
    yield ("--bucket.dtype=bfloat16",)


def _names(flags: Sequence[str]) -> set[str]:
  return {flag.partition("=")[0] for flag in flags}


def _powers(most: int) -> Iterator[int]:
  return itertools.takewhile(lambda n: n <= most, (2**i for i in range(32)))


def _predicted(plan: Plan, candidates, price_table) -> list[Candidate]:
  """Those that can be, not compiled yet, in order of their time."""
  found = []
  for flags in candidates:
    try:
      config = overrides.parse(plan.config, flags)
      made = make(config, plan.slices, price_table, compiles=False)
    except UserError:  # the mesh does not divide something
      continue
    if made.fits is not False:
      found.append(Candidate(_shown(flags, plan), made))
  return sorted(found, key=lambda one: one.plan.hours)


def _shown(flags: Sequence[str], plan: Plan) -> tuple[str, ...]:
  """Without those that only undo what the run does not do."""
  if plan.config.mesh.data is None:
    return tuple(flag for flag in flags if flag != "--mesh.data=none")
  return tuple(flags)


def _compiled(one: Candidate, price_table, tell) -> Candidate:
  tell(f"compiling with {one} …")
  return Candidate(
    one.flags, make(one.plan.config, one.plan.slices, price_table)
  )


def _ranked(found: list[Candidate]) -> list[Candidate]:
  return sorted(found, key=lambda t: (not t.plan.fits, t.plan.hours))
