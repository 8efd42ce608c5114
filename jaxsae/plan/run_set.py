"""The plans of all runs of an experiment, their sums and their shares."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import jax.numpy as jnp
from jax.sharding import AbstractMesh

from jaxsae.lm import GemmaConfig
from jaxsae.lm.weights import read_sizes
from jaxsae.plan import lm_work
from jaxsae.plan.parts import COMPILED
from jaxsae.plan.plan import Plan, make, with_evaluation
from jaxsae.plan.prices import PriceTable
from jaxsae.plan.roofline import Roofline
from jaxsae.plan.topology import Slices
from jaxsae.runs.flops import balanced_shares
from jaxsae.train.config.run import TrainConfig
from jaxsae.train.config.sweep import Stack
from jaxsae.train.placement.cost_model import update_times
from jaxsae.train.placement.select import member_work


@dataclasses.dataclass(frozen=True)
class RunSet:
  """The plans of several runs on slices of one kind.

  Attributes:
    plans: name → plan of each run.
    stand_ins: name of a run → name of the run compiled in its place.
    shares: the names of the runs in each share; shares train at the same time.
    unshared_chip_hours: chip-hours if each autoencoder were a run of its own,
      with its own forward passes.
  """

  plans: Mapping[str, Plan]
  stand_ins: Mapping[str, str]
  shares: Sequence[Sequence[str]]
  unshared_chip_hours: float

  @property
  def fits(self) -> bool | None:
    """True if all runs fit; None if only the compiler could say."""
    found = [plan.fits for plan in self.plans.values()]
    return False if False in found else None if None in found else True

  @property
  def slices(self) -> Slices:
    """The slices that every run is planned for."""
    return next(iter(self.plans.values())).slices

  @property
  def chip_hours(self) -> float | None:
    """Chip-hours of all runs; None if a run is impossible."""
    return self._sum("chip_hours")

  @property
  def chip_hours_without_overlap(self) -> float | None:
    """Chip-hours of all runs if nothing overlaps."""
    return self._sum("chip_hours_without_overlap")

  @property
  def money(self) -> float | None:
    """Money for all runs on demand; None if not known."""
    return self._sum("money")

  @property
  def money_without_overlap(self) -> float | None:
    """Money for all runs on demand if nothing overlaps."""
    return self._sum("money_without_overlap")

  @property
  def money_spot(self) -> float | None:
    """Money for all runs on spot chips; None if not known."""
    return self._sum("money_spot")

  @property
  def unshared_money(self) -> float | None:
    """Money on demand if each autoencoder were a run of its own."""
    price = next(iter(self.plans.values())).price
    return price and self.unshared_chip_hours * price.on_demand

  @property
  def currency(self) -> str | None:
    """Currency of the price; None if no price is known."""
    price = next(iter(self.plans.values())).price
    return price and price.currency

  @property
  def hours(self) -> float | None:
    """Hours until the last share is done; None if a run is impossible."""
    if any(plan.error for plan in self.plans.values()):
      return None
    return max(
      sum(self.plans[name].hours for name in share) for share in self.shares
    )

  def _sum(self, name: str) -> float | None:
    plans = self.plans.values()
    values: list[float | None] = [
      None if plan.error else getattr(plan, name) for plan in plans
    ]
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None


def plan_all(
  configs: Mapping[str, TrainConfig],
  slices: Slices,
  price_table: PriceTable,
  at_once: int = 1,
  compiles: bool = True,
  tell: Callable[[str], None] = lambda line: None,
) -> RunSet:
  """Plans every run.

  Runs that differ only in their layers and tokens take nearly the same memory:
  a further layer of the language model adds a little. Of these only the deepest
  run is compiled.

  Args:
    configs: name → config of each run.
    slices: the slices to plan each run for.
    price_table: the price of each kind of chip.
    at_once: number of runs that train at the same time.
    compiles: whether to compile.
    tell: is called with a line of progress.
  """
  stand_ins = deepest(configs) if compiles else {}
  compiled = {}
  for number, name in enumerate(dict.fromkeys(stand_ins.values()), 1):
    count = len(set(stand_ins.values()))
    tell(f"compiling {name} for {slices} ({number} of {count}) …")
    made = make(configs[name], slices, price_table)
    compiled[name] = with_evaluation(made)
  plans = {}
  for name, config in configs.items():
    stand_in = compiled.get(stand_ins.get(name))
    if name in compiled:
      plans[name] = compiled[name]
    else:
      plans[name] = _with_compiled(
        make(config, slices, price_table, False), stand_in
      )
  hours = {name: plan.hours for name, plan in plans.items()}
  return RunSet(
    plans,
    {name: other for name, other in stand_ins.items() if name != other},
    balanced_shares(hours, at_once),
    sum(map(_unshared_chip_hours, plans.values())),
  )


def deepest(configs: Mapping[str, TrainConfig]) -> dict[str, str]:
  """Returns, for every run, the run of its kind that reads the most layers."""
  kinds: dict[tuple, list[str]] = {}
  for name, config in configs.items():
    kinds.setdefault(_kind(config), []).append(name)
  depth = lambda name: max(site.layer for site in configs[name].sites)
  return {
    name: max(names, key=depth) for names in kinds.values() for name in names
  }


def _kind(config: TrainConfig) -> tuple:
  """Returns everything that decides a run's memory, except its layers."""
  stacks = sorted(
    f"{stack.taps.kind} {stack.width} {len(stack.members)}"
    f" {stack.architecture} {stack.sweep.placement}"
    for stack in config.stacks
  )
  return (
    read_sizes(config.lm),
    tuple(stacks),
    config.bucket,
    config.data.context,
    config.mesh,
    config.fsdp,
  )


def _with_compiled(plan: Plan, other: Plan | None) -> Plan:
  """Returns a plan with what compiling another run of its kind showed."""
  if other is None or plan.error:
    return plan
  found = [part for part in other.roofline.parts if part.where == COMPILED]
  temporaries = other.memory.temporaries
  return dataclasses.replace(
    plan,
    memory=dataclasses.replace(plan.memory, temporaries=temporaries),
    roofline=Roofline((*plan.roofline.parts, *found)),
    compilation=other.compilation,
    evaluation=other.evaluation,
  )


def _unshared_chip_hours(plan: Plan) -> float:
  """Returns the chip-hours if each autoencoder were a run of its own."""
  gemma = read_sizes(plan.config.lm)
  seconds = sum(
    len(stack.members) * _unshared_step(plan, gemma, stack)
    for stack in plan.config.stacks
  )
  return plan.config.steps * seconds * plan.slices.chips / 3600


def _unshared_step(plan: Plan, gemma: GemmaConfig, stack: Stack) -> float:
  """Returns the seconds of a step that trains one member of a stack."""
  config, chip = plan.config, plan.slices.kind.chip
  mesh = AbstractMesh(plan.shape, ("data", "model"))
  d_in, d = stack.taps.d_in(gemma), stack.taps.d(gemma)
  dtype = jnp.dtype(jnp.bfloat16)
  updates = member_work(stack, config.schedule, dtype, d_in, d)
  best = update_times(updates, mesh, chip)[0]
  reading = lm_work.work(config, gemma, mesh, stack.taps.sites)
  return config.updates_per_bucket * max(
    best.compute, best.memory, best.communication
  ) + max(
    reading.flops / chip.flops,
    reading.traffic / chip.hbm_bandwidth,
    reading.sent / chip.link_bandwidth,
  )
