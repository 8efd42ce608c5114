"""What it saves to divide `data` among a few autoencoders, on large slices.

  pip install "jaxsae[tpu]"
  python experiments/benchmarks/divided.py --out=docs/divided.md

First the update of four autoencoders of 16,384 latents at one site, compiled
for v6e:8x8 with and without; then all grids of Gemma Scope by the cost model.
No TPU is needed.
"""

import argparse
import functools
import pathlib
import time
from collections.abc import Iterator

from jax.sharding import Mesh

from experiments.benchmarks.placements import STUB, Case, choice, configure
from experiments.benchmarks.plans import FLAGS, GRIDS, HERE, SLICES
from jaxsae.errors import exit_on_user_error
from jaxsae.lm.weights import read_sizes
from jaxsae.mesh import MeshConfig
from jaxsae.plan import compiler_process, experiment_file, hlo
from jaxsae.plan.topology import make_mesh, parse
from jaxsae.train import step as steps
from jaxsae.train.config.run import TrainConfig
from jaxsae.train.group import make_groups
from jaxsae.train.placement.cost_model import UpdateTime
from jaxsae.train.placement.select import (
  PlacementChoice,
  bucket_dtype,
  choose_placements,
  resident_bytes,
)
from jaxsae.train.sources.text import abstract_arguments, read_bucket

CASE, SLICE, DATA, MODEL = Case(1, 4, 16_384), "v6e:8x8", 64, 1

TITLE = """# Dividing `data` among a few autoencoders

Where a few autoencoders train on many chips, autoencoders are sharded over one
part of `data` and the latents of each over the rest, so fewer chips sum each
reconstruction, and each takes part in fewer of them. What is sent then depends
on tokens alone: larger updates send as much a token, only less often.

Made by the TPU compiler and the cost model, on a machine without a TPU:

    python experiments/benchmarks/divided.py --out=docs/divided.md

on {date}. Four autoencoders of 16,384 latents at one site, 64 chips ({slice} as
{data} x {model}). Times are the cost model's, with nothing at the same time.

| placement | ms an update | compute | memory | communication |\
 sent MB, predicted | sent MB, compiled |
|---|---|---|---|---|---|---|"""

GRID_TITLE = """
All runs of each grid with the flags of [PLANS.md](PLANS.md), by the cost model
alone: without and with dividing, hours of updates if nothing overlaps.

| grid | slice | updates, h | of these communication, h |\
 sent by a chip, TB | runs that divide |
|---|---|---|---|---|---|"""


@exit_on_user_error()
def main():
  compiler_process.enter()
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--out", type=pathlib.Path, help="also write it here")
  options = parser.parse_args()
  lines = []
  for line in page():
    print(line, flush=True)
    lines.append(line)
  if options.out:
    options.out.write_text("\n".join(lines) + "\n")


def page() -> Iterator[str]:
  """Yields the lines of both tables."""
  date = time.strftime("%Y-%m-%d")
  yield TITLE.format(slice=SLICE, data=DATA, model=MODEL, date=date)
  yield from update_lines()
  yield GRID_TITLE
  for slices in SLICES:
    for grid in GRIDS:
      yield grid_line(grid, slices)


def update_lines() -> Iterator[str]:
  """Yields a line for the best placement without dividing, and with it."""
  config = configure(CASE, "auto")
  mesh = make_mesh(MeshConfig(DATA, MODEL), parse(SLICE))
  arguments = abstract_arguments(config, STUB, mesh)
  best = choice(config, mesh, *arguments[:2])
  read = functools.partial(read_bucket, config, mesh)
  for found in (undivided(best), best.time):
    placed = [PlacementChoice(best.indices, found, ())]
    groups = make_groups(config.stacks, config.schedule, mesh, placed)
    compiled = steps.compile_step(read, groups, *arguments)
    sent = sum(hlo.total(hlo.in_updates(compiled.as_text())).values())
    yield update_line(found, config.updates_per_bucket, sent)


def update_line(found: UpdateTime, updates: int, sent: float) -> str:
  times = (found.seconds, found.compute, found.memory, found.communication)
  cells = [
    str(found.placement),
    *(f"{1e3 * seconds:.2f}" for seconds in times),
    f"{(found.sent - found.moved / updates) / 1e6:,.1f}",
    f"{sent / 1e6:,.1f}",
  ]
  return f"| {' | '.join(cells)} |"


def undivided(found: PlacementChoice) -> UpdateTime:
  """Returns the fastest possible placement that does not divide `data`."""
  every = (found.time, *found.others)
  possible = [t for t in every if not t.error and t.placement.part == 1]
  return min(possible, key=lambda time: time.seconds)


def grid_line(grid: str, slices: str) -> str:
  path = str(HERE / f"{grid}.py")
  given = experiment_file.read(path, [f"--topology={slices}", *FLAGS])
  runs = [sums(config, slices) for config in given.configs.values()]
  before, after = (
    [sum(figure) for figure in zip(*part, strict=True)]
    for part in zip(*runs, strict=True)
  )
  cells = [
    f"{then:,.1f} → {now:,.1f}"
    for then, now in zip(before[:3], after[:3], strict=True)
  ]
  count = f"{after[3]:.0f} of {len(runs)}"
  return f"| {' | '.join((grid, slices, *cells, count))} |"


def sums(config: TrainConfig, slices: str) -> list[tuple[float, ...]]:
  """Returns hours, those of communication, TB, and 1 if any stack divides."""
  mesh = make_mesh(config.mesh, parse(slices))
  config = config.fitted(mesh.shape["data"])
  placed = places(config, mesh)
  updates = config.steps * config.updates_per_bucket
  before = [figures(undivided(one), updates) for one in placed]
  after = [figures(one.time, updates) for one in placed]
  return [summed(before), summed(after)]


def summed(found: list[tuple[float, ...]]) -> tuple[float, ...]:
  *sums, divided = zip(*found, strict=True)
  return (*map(sum, sums), max(divided))


def places(config: TrainConfig, mesh: Mesh) -> list[PlacementChoice]:
  state, lm, _ = abstract_arguments(config, read_sizes(config.lm), mesh)
  return choose_placements(
    config.stacks,
    config.schedule,
    mesh,
    state.stacks,
    bucket_dtype(config, lm),
    resident_bytes(config, mesh, lm),
  )


def figures(time: UpdateTime, updates: int) -> tuple[float, ...]:
  hours = updates / 3600
  return (
    hours * time.seconds,
    hours * time.communication,
    updates * time.sent / 1e12,
    float(time.placement.part > 1),
  )


if __name__ == "__main__":
  main()
