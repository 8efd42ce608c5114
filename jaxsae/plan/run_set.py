"""The runs of an experiment together: their sums, and how they are dealt."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from jax.sharding import AbstractMesh

from jaxsae.lm import GemmaConfig
from jaxsae.lm.weights import read_sizes
from jaxsae.plan import lm_work
from jaxsae.plan.parts import COMPILED
from jaxsae.plan.plan import Plan, make
from jaxsae.plan.roofline import Roofline
from jaxsae.plan.topology import Slices
from jaxsae.runs.flops import balanced_shares
from jaxsae.train.config.run import TrainConfig
from jaxsae.train.config.sweep import Stack
from jaxsae.train.placement.cost_model import Work, prices


@dataclasses.dataclass(frozen=True)
class Sweep:
  """Runs on slices of one kind.

  Attributes:
    plans: of each run, by name.
    stand_ins: run → the one that was compiled in its stead.
    shares: of each of the machines that train at once, the names of its runs.
    lonely_chip_hours: if each autoencoder were a run of its own, with forward
      passes of its own.
  """

  plans: Mapping[str, Plan]
  stand_ins: Mapping[str, str]
  shares: Sequence[Sequence[str]]
  lonely_chip_hours: float

  @property
  def fits(self) -> bool | None:
    """Whether all do."""
    found = [plan.fits for plan in self.plans.values()]
    return False if False in found else None if None in found else True

  @property
  def slices(self) -> Slices:
    return next(iter(self.plans.values())).slices

  @property
  def chip_hours(self) -> float | None:
    return self._sum("chip_hours")

  @property
  def slow_chip_hours(self) -> float | None:
    return self._sum("slow_chip_hours")

  @property
  def cost(self) -> float | None:
    return self._sum("cost")

  @property
  def slow_cost(self) -> float | None:
    return self._sum("slow_cost")

  @property
  def spot_cost(self) -> float | None:
    return self._sum("spot_cost")

  @property
  def lonely_cost(self) -> float | None:
    price = next(iter(self.plans.values())).price
    return price and self.lonely_chip_hours * price.on_demand

  @property
  def currency(self) -> str | None:
    price = next(iter(self.plans.values())).price
    return price and price.currency

  @property
  def hours(self) -> float | None:
    """Until the last of the machines is done."""
    if any(plan.misfit for plan in self.plans.values()):
      return None
    return max(
      sum(self.plans[name].hours for name in share) for share in self.shares
    )

  def _sum(self, name: str) -> float | None:
    values = [
      None if plan.misfit else getattr(plan, name)
      for plan in self.plans.values()
    ]
    return None if None in values else sum(values)


def plan_all(
  configs: Mapping[str, TrainConfig],
  slices: Slices,
  price_table,
  at_once: int = 1,
  compiles: bool = True,
  tell: Callable[[str], None] = lambda line: None,
) -> Sweep:
  """Plans every run.

  Runs that differ in their layers and tokens alone take the same memory but
  for what a layer more of the language model takes in passing. Of these only
  the deepest is compiled.

  Args:
    configs: the runs, by name.
    slices: what each is to run on.
    price_table: of chips, by kind.
    at_once: how many machines there are.
    compiles: whether to ask the compiler.
    tell: is told what is under way.
  """
  stand_ins = deepest(configs) if compiles else {}
  compiled = {}
  for number, name in enumerate(dict.fromkeys(stand_ins.values()), 1):
    count = len(set(stand_ins.values()))
    tell(f"compiling {name} for {slices} ({number} of {count}) …")
    compiled[name] = make(configs[name], slices, price_table)
  plans = {}
  for name, config in configs.items():
    stand_in = compiled.get(stand_ins.get(name))
    if name in compiled:
      plans[name] = compiled[name]
    else:
      plans[name] = _like(make(config, slices, price_table, False), stand_in)
  hours = {name: plan.hours for name, plan in plans.items()}
  return Sweep(
    plans,
    {name: other for name, other in stand_ins.items() if name != other},
    balanced_shares(hours, at_once),
    sum(map(_lonely, plans.values())),
  )


def deepest(configs: Mapping[str, TrainConfig]) -> dict[str, str]:
  """Every run → the run of its kind that reads the most layers."""
  kinds: dict[tuple, list[str]] = {}
  for name, config in configs.items():
    kinds.setdefault(_kind(config), []).append(name)
  depth = lambda name: max(site.layer for site in configs[name].sites)
  return {
    name: max(names, key=depth) for names in kinds.values() for name in names
  }


def _kind(config: TrainConfig) -> tuple:
  """What decides memory, but for the layers."""
  stacks = sorted(
    f"{stack.site.where} {stack.width} {len(stack.members)}"
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


def _like(plan: Plan, other: Plan | None) -> Plan:
  """With what the compiler found of another of its kind."""
  if other is None or plan.misfit:
    return plan
  found = [part for part in other.roofline.parts if part.where == COMPILED]
  temporaries = other.owners.temporaries
  return dataclasses.replace(
    plan,
    owners=dataclasses.replace(plan.owners, temporaries=temporaries),
    roofline=Roofline((*plan.roofline.parts, *found)),
    compilation=other.compilation,
  )


def _lonely(plan: Plan) -> float:
  """Chip-hours if each autoencoder were a run of its own."""
  gemma = read_sizes(plan.config.lm)
  seconds = sum(
    len(stack.members) * _alone(plan, gemma, stack)
    for stack in plan.config.stacks
  )
  return plan.config.steps * seconds * plan.slices.chips / 3600


def _alone(plan: Plan, gemma: GemmaConfig, stack: Stack) -> float:
  """Seconds of a step that trains a single member of a stack."""
  config, chip = plan.config, plan.slices.kind.chip
  mesh = AbstractMesh(plan.shape, ("data", "model"))
  site = stack.site
  d_in, d = site.input.width(gemma), site.output.width(gemma)
  columns = d_in + (d if stack.architecture.transcodes else 0)
  updates = Work(
    sites=1,
    members=1,
    d_in=d_in,
    d=d,
    width=stack.width,
    tokens=config.bucket.update_tokens,
    updates=config.updates_per_bucket,
    row=2 * columns,
    moments=2 if stack.sweep.optim.b1 else 1,
  )
  best = prices(updates, mesh, chip)[0]
  reading = lm_work.work(config, gemma, mesh, (site.input, site.output))
  return config.updates_per_bucket * max(
    best.compute, best.memory, best.communication
  ) + max(
    reading.flops / chip.flops,
    reading.traffic / chip.hbm_bandwidth,
    reading.sent / chip.link_bandwidth,
  )
